import { join } from 'node:path';
import type { CgroupUsage } from '../../cgroups/index.ts';
import { isErrno } from '../errors.ts';
import { isReady, type SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { type InterfaceCounters, readNetDev } from '../sys/namespaces.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { mapYielding } from '../util/yielding.ts';
import { type ContainerStats, LIST_AGE_MS, listContainerStats } from './container-stats.ts';
import { podCgroups } from './pod-cgroup.ts';
import type { Reading } from './readings.ts';
import { sum, sumUsage } from './sum.ts';

/** One reading of a pod's use of the node. What is unknown is undefined, never 0. */
export interface SandboxStats {
  readonly record: SandboxRecord;
  /** Of the whole pod: its containers and the pause process. */
  readonly cgroup: CgroupUsage;
  /** CPU use, nanoseconds per second. */
  readonly usageNanoCores: bigint | undefined;
  /** Tasks, threads included, as the kernel's pids controller counts and limits them. */
  readonly processes: bigint | undefined;
  /** Undefined with the host's network, whose traffic is not the pod's. */
  readonly network: NetworkStats | undefined;
  /** Those that have not ended. */
  readonly containers: readonly ContainerStats[];
}

/** Counters of a pod's interfaces, without loopback. */
export interface NetworkStats {
  /** Nanoseconds since the epoch. */
  readonly timestampNs: bigint;
  /** The one that the pod's addresses are on. */
  readonly standard: InterfaceCounters | undefined;
  readonly interfaces: readonly InterfaceCounters[];
}

/** A pod's figures now; undefined when it is not ready, or stops while it is read. */
export async function sandboxStats(
  s: Services,
  sandbox: SandboxRecord,
  maxAgeMs = 0,
  ownCgroup = podCgroups(s.sandboxes.values()),
): Promise<SandboxStats | undefined> {
  if (!isReady(sandbox)) return undefined;
  const members = [...s.containers.values()].filter((c) => c.sandboxId === sandbox.id && c.phase === 'live');
  const running = members.filter(({ exit }) => exit === undefined);
  const containers = await listContainerStats(s, running);
  const own = ownCgroup(sandbox);
  const paths = [sandbox.cgroup.path, ...running.map(({ cgroup }) => cgroup.path)];
  const whole = own === undefined ? together(s, paths, maxAgeMs) : s.readings.read(own, maxAgeMs);
  if (whole === undefined) return undefined;
  const network = networkStats(s, sandbox);
  const record = s.sandboxes.get(sandbox.id);
  if (record === undefined || !isReady(record)) return undefined;
  return {
    record,
    cgroup: whole.usage,
    usageNanoCores: whole.nanoCores,
    processes: sum((own === undefined ? paths : [own]).map((path) => s.cgroups.pids(path).current)),
    network,
    containers,
  };
}

/** The same for many; those that stop meanwhile are left out. */
export async function listSandboxStats(
  s: Services,
  sandboxes: readonly SandboxRecord[],
): Promise<SandboxStats[]> {
  const ownCgroup = podCgroups(s.sandboxes.values());
  const all = await mapYielding(sandboxes, (sandbox) => sandboxStats(s, sandbox, LIST_AGE_MS, ownCgroup));
  return all.filter((stats) => stats !== undefined);
}

/** What the cgroups that are there use together. */
function together(s: Services, paths: readonly string[], maxAgeMs: number): Reading | undefined {
  const readings = paths
    .map((path) => s.readings.read(path, maxAgeMs))
    .filter((reading) => reading !== undefined);
  const usage = sumUsage(readings.map((reading) => reading.usage));
  return usage && { usage, nanoCores: sum(readings.map(({ nanoCores }) => nanoCores)) };
}

/** Read inside the pod's namespace by this thread itself; undefined when that has just gone. */
export function networkStats(s: Services, sandbox: SandboxRecord): NetworkStats | undefined {
  if (sandbox.config.security.namespaces.network !== 'pod') return undefined;
  const timestampNs = nowNs();
  let all: InterfaceCounters[];
  try {
    all = readNetDev(join(s.paths.sandbox(sandbox.id).namespaces, 'net'));
  } catch (e: unknown) {
    // EINVAL: the pin's mount is gone and its file is not yet.
    if (isErrno(e, 'ENOENT', 'EINVAL')) return undefined;
    throw e;
  }
  const interfaces = all.filter(({ name }) => name !== 'lo');
  const wanted = sandbox.attachment?.ifName ?? 'eth0';
  const standard = interfaces.find(({ name }) => name === wanted) ?? interfaces[0];
  return { timestampNs, standard, interfaces };
}
