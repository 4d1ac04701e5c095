import type { Psi, PsiLine } from '../../cgroups/types.ts';
import type { ContainerStats } from '../../proto/gen/runtime/v1/ContainerStats.ts';
import type { PsiStats } from '../../proto/gen/runtime/v1/PsiStats.ts';
import type { ContainerStats as DomainStats } from '../../src/container/stats.ts';

/** What is unknown is absent, never 0: the kubelet takes a 0 for a measurement. */
export function toContainerStats(
  { record, cgroup, usageNanoCores, writableLayer }: DomainStats,
  mountpoint: string,
): ContainerStats {
  const timestamp = String(cgroup.timestampNs);
  const { cpu, memory, psi } = cgroup;
  return {
    attributes: {
      id: record.id,
      metadata: record.config.metadata,
      labels: record.config.labels,
      annotations: record.config.annotations,
    },
    cpu: {
      timestamp,
      usage_core_nano_seconds: value(cpu.usageNs),
      usage_nano_cores: value(usageNanoCores),
      psi: toPsi(psi?.cpu),
    },
    memory: {
      timestamp,
      working_set_bytes: value(memory.workingSetBytes),
      available_bytes: value(memory.availableBytes),
      usage_bytes: value(memory.usageBytes),
      rss_bytes: value(memory.rssBytes),
      page_faults: value(memory.pageFaults),
      major_page_faults: value(memory.majorPageFaults),
      psi: toPsi(psi?.memory),
    },
    swap: {
      timestamp,
      swap_usage_bytes: value(memory.swapUsageBytes),
      swap_available_bytes: value(
        memory.swapLimitBytes === undefined || memory.swapUsageBytes === undefined
          ? undefined
          : memory.swapLimitBytes - memory.swapUsageBytes,
      ),
    },
    io: { timestamp, psi: toPsi(psi?.io) },
    ...(writableLayer === undefined
      ? {}
      : {
          writable_layer: {
            timestamp: String(writableLayer.timestampNs),
            fs_id: { mountpoint },
            used_bytes: value(writableLayer.usedBytes),
            inodes_used: value(writableLayer.inodesUsed),
          },
        }),
  };
}

function value(v: bigint | undefined): { value: string } | null {
  return v === undefined ? null : { value: String(v) };
}

function toPsi(psi: Psi | undefined): PsiStats | null {
  if (psi === undefined) return null;
  return { Some: toPsiData(psi.some), Full: psi.full === undefined ? null : toPsiData(psi.full) };
}

function toPsiData(line: PsiLine) {
  return { Total: String(line.totalNs), Avg10: line.avg10, Avg60: line.avg60, Avg300: line.avg300 };
}
