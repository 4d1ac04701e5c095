import { join } from 'node:path';
import type { CgroupUsage } from '../../cgroups/index.ts';
import type { ContainerRecord } from '../container/record.ts';
import { isErrno } from '../errors.ts';
import { isReady, type SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { type InterfaceCounters, readNetDev } from '../sys/namespaces.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { mapYielding } from '../util/yielding.ts';
import { TAP_PREFIX } from '../vm/network/names.ts';
import { type ContainerStats, LIST_AGE_MS, listContainerStats } from './container-stats.ts';
import { cgroupsOf, podCgroups } from './pod-cgroup.ts';
import type { Reading } from './readings.ts';
import { nothingUsed, sum, sumUsage } from './sum.ts';
import { nodeSwapBytes } from './swap.ts';

/** One reading of a pod's use of the node. What is unknown is undefined, never 0. */
export interface SandboxStats {
  readonly record: SandboxRecord;
  /** Of the whole pod: its containers and, if it has one, the pause process. */
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

/** What is found out once for all pods of a list. */
interface Look {
  readonly maxAgeMs: number;
  readonly nodeSwap: bigint | undefined;
  readonly ownCgroup: (sandbox: SandboxRecord) => string | undefined;
  /** Containers that have not ended, by sandbox. */
  readonly running: ReadonlyMap<string, readonly ContainerRecord[]>;
}

/** A pod's figures now; undefined when it is not ready, or stops while it is read. */
export async function sandboxStats(s: Services, sandbox: SandboxRecord): Promise<SandboxStats | undefined> {
  return measure(s, sandbox, look(s, 0));
}

/** The same for many; those that stop meanwhile are left out. */
export async function listSandboxStats(
  s: Services,
  sandboxes: readonly SandboxRecord[],
): Promise<SandboxStats[]> {
  const once = look(s, LIST_AGE_MS);
  const all = await mapYielding(sandboxes, (sandbox) => measure(s, sandbox, once));
  return all.filter((stats) => stats !== undefined);
}

function look(s: Services, maxAgeMs: number): Look {
  const running = Map.groupBy(s.containers.values(), ({ phase, exit, sandboxId }) =>
    phase === 'live' && exit === undefined ? sandboxId : '',
  );
  return { maxAgeMs, nodeSwap: nodeSwapBytes(), ownCgroup: podCgroups(s.sandboxes.values()), running };
}

async function measure(
  s: Services,
  sandbox: SandboxRecord,
  { maxAgeMs, nodeSwap, ownCgroup, running }: Look,
): Promise<SandboxStats | undefined> {
  if (!isReady(sandbox)) return undefined;
  const members = running.get(sandbox.id) ?? [];
  const containers = await listContainerStats(s, members, maxAgeMs, nodeSwap);
  const own = ownCgroup(sandbox);
  const isInGuest = (path: string) => s.guests.of(path) !== undefined;
  const paths = own === undefined ? cgroupsOf(sandbox, members, isInGuest) : [own];
  const read = paths.map((path) => ({ path, reading: s.readings.read(path, maxAgeMs) }));
  const there = read.flatMap(({ path, reading }) => (reading === undefined ? [] : [{ path, reading }]));
  const whole = own === undefined ? together(there.map(({ reading }) => reading)) : there[0]?.reading;
  const network = networkStats(s, sandbox);
  const record = s.sandboxes.get(sandbox.id);
  if (record === undefined || !isReady(record)) return undefined;
  return {
    record,
    // One that has no process yet has no cgroup either.
    cgroup: whole?.usage ?? nothingUsed(nowNs()),
    usageNanoCores: whole === undefined ? 0n : whole.nanoCores,
    processes: there.length === 0 ? 0n : sum(there.map(({ path }) => s.cgroups.tasks(path))),
    network,
    containers,
  };
}

function together(readings: readonly Reading[]): Reading | undefined {
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
  const interfaces = all.filter(({ name }) => name !== 'lo' && !name.startsWith(TAP_PREFIX));
  const wanted = sandbox.attachment?.ifName ?? 'eth0';
  const standard = interfaces.find(({ name }) => name === wanted) ?? interfaces[0];
  return { timestampNs, standard, interfaces };
}
