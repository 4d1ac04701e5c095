import type { CgroupUsage, Psi, PsiLine } from '../../cgroups/types.ts';
import type { ContainerStats } from '../../proto/gen/runtime/v1/ContainerStats.ts';
import type { CpuUsage } from '../../proto/gen/runtime/v1/CpuUsage.ts';
import type { MemoryUsage } from '../../proto/gen/runtime/v1/MemoryUsage.ts';
import type { NetworkInterfaceUsage } from '../../proto/gen/runtime/v1/NetworkInterfaceUsage.ts';
import type { NetworkUsage } from '../../proto/gen/runtime/v1/NetworkUsage.ts';
import type { PodSandboxStats } from '../../proto/gen/runtime/v1/PodSandboxStats.ts';
import type { PsiStats } from '../../proto/gen/runtime/v1/PsiStats.ts';
import type { UInt64Value } from '../../proto/gen/runtime/v1/UInt64Value.ts';
import type { ContainerStats as DomainStats } from '../../src/stats/container-stats.ts';
import type { NetworkStats, SandboxStats } from '../../src/stats/sandbox-stats.ts';
import type { InterfaceCounters } from '../../src/sys/namespaces.ts';
import { int64 } from './int64.ts';

/** What sandboxes and containers have in common; their metadata are not alike. */
interface Attributed<T> {
  id: string;
  config: { metadata: T; labels: Record<string, string>; annotations: Record<string, string> };
}

/** What is unknown is absent, never 0: the kubelet takes a 0 for a measurement. */
export function toContainerStats(
  { record, cgroup, usageNanoCores, swapAvailableBytes, writableLayer }: DomainStats,
  mountpoint: string,
): ContainerStats {
  const timestamp = int64(cgroup.timestampNs);
  return {
    attributes: attributesOf(record),
    cpu: toCpu(cgroup, usageNanoCores),
    memory: toMemory(cgroup),
    swap: {
      timestamp,
      swap_usage_bytes: value(cgroup.memory.swapUsageBytes),
      swap_available_bytes: value(swapAvailableBytes),
    },
    io: { timestamp, psi: toPsi(cgroup.psi?.io) },
    ...(writableLayer === undefined
      ? {}
      : {
          writable_layer: {
            timestamp: int64(writableLayer.timestampNs),
            fs_id: { mountpoint },
            used_bytes: value(writableLayer.usedBytes),
            inodes_used: value(writableLayer.inodesUsed),
          },
        }),
  };
}

/** `linux` is always there: the kubelet reads through it unasked. */
export function toPodSandboxStats(
  { record, cgroup, usageNanoCores, processes, network, containers }: SandboxStats,
  mountpoint: string,
): PodSandboxStats {
  const timestamp = int64(cgroup.timestampNs);
  return {
    attributes: attributesOf(record),
    linux: {
      cpu: toCpu(cgroup, usageNanoCores),
      memory: toMemory(cgroup),
      network: network === undefined ? null : toNetwork(network),
      process: { timestamp, process_count: value(processes) },
      containers: containers.map((stats) => toContainerStats(stats, mountpoint)),
      io: { timestamp, psi: toPsi(cgroup.psi?.io) },
    },
  };
}

function attributesOf<T>({ id, config: { metadata, labels, annotations } }: Attributed<T>) {
  return { id, metadata, labels, annotations };
}

function toCpu({ timestampNs, cpu, psi }: CgroupUsage, usageNanoCores: bigint | undefined): CpuUsage {
  return {
    timestamp: int64(timestampNs),
    usage_core_nano_seconds: value(cpu.usageNs),
    usage_nano_cores: value(usageNanoCores),
    psi: toPsi(psi?.cpu),
  };
}

function toMemory({ timestampNs, memory, psi }: CgroupUsage): MemoryUsage {
  return {
    timestamp: int64(timestampNs),
    working_set_bytes: value(memory.workingSetBytes),
    available_bytes: value(memory.availableBytes),
    usage_bytes: value(memory.usageBytes),
    rss_bytes: value(memory.rssBytes),
    page_faults: value(memory.pageFaults),
    major_page_faults: value(memory.majorPageFaults),
    psi: toPsi(psi?.memory),
  };
}

function toNetwork({ timestampNs, standard, interfaces }: NetworkStats): NetworkUsage {
  return {
    timestamp: int64(timestampNs),
    default_interface: standard === undefined ? null : toInterface(standard),
    interfaces: interfaces.map(toInterface),
  };
}

function toInterface(i: InterfaceCounters): NetworkInterfaceUsage {
  return {
    name: i.name,
    rx_bytes: value(i.rxBytes),
    rx_errors: value(i.rxErrors),
    tx_bytes: value(i.txBytes),
    tx_errors: value(i.txErrors),
  };
}

function value(v: bigint | undefined): UInt64Value | null {
  return v === undefined ? null : { value: int64(v) };
}

function toPsi(psi: Psi | undefined): PsiStats | null {
  if (psi === undefined) return null;
  return { Some: toPsiData(psi.some), Full: psi.full === undefined ? null : toPsiData(psi.full) };
}

function toPsiData(line: PsiLine) {
  return { Total: int64(line.totalNs), Avg10: line.avg10, Avg60: line.avg60, Avg300: line.avg300 };
}
