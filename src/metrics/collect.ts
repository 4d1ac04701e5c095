import { readdir } from 'node:fs/promises';
import type { CgroupDetails } from '../../cgroups/types.ts';
import type { ContainerRecord } from '../container/record.ts';
import { isErrno } from '../errors.ts';
import type { GuestUsage } from '../runtime/handler.ts';
import { isReady, type SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { handlerOf, LIST_AGE_MS } from '../stats/container-stats.ts';
import { podCgroups } from '../stats/pod-cgroup.ts';
import { networkStats } from '../stats/sandbox-stats.ts';
import { writableLayer } from '../stats/writable-layer-usage.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { mapYielding } from '../util/yielding.ts';
import { deviceNames, filesystemOf } from './devices.ts';
import type { FilesystemUse, Measured } from './family.ts';

/** What was measured of one thing, and the labels of all its series. */
export interface Series {
  /** Values of BASE_LABELS, in their order. */
  readonly base: readonly string[];
  /** Nanoseconds since the epoch. */
  readonly timestampNs: bigint;
  readonly measured: Measured;
}

/** All series of one pod. */
export interface PodMetrics {
  readonly sandboxId: string;
  /** Of the pod itself: its cgroup, its network. */
  readonly pod: readonly Series[];
  readonly containers: readonly (Series & { readonly containerId: string })[];
}

/** What one scrape finds out once. */
interface Scrape {
  readonly pageSizes: readonly string[];
  readonly deviceName: Measured['deviceName'];
  readonly filesystem: Omit<FilesystemUse, 'usedBytes'>;
  readonly ownCgroup: (sandbox: SandboxRecord) => string | undefined;
}

/**
 * Measures every ready pod with its running containers, one after the other. What ends meanwhile is left out.
 *
 * @param use what becomes of a pod's figures. Those of a hundred pods at once would be far more than the
 * heap's nursery holds, and take the garbage collector longer than the kernel took for them
 */
export async function mapMetrics<R>(s: Services, use: (pod: PodMetrics) => R): Promise<Awaited<R>[]> {
  const deviceName = deviceNames();
  const scrape: Scrape = {
    deviceName,
    pageSizes: await hugePageSizes(),
    filesystem: await filesystemOf(s.paths.writableLayers, deviceName),
    ownCgroup: podCgroups(s.sandboxes.values()),
  };
  const running = Map.groupBy(s.containers.values(), ({ phase, exit, sandboxId }) =>
    phase === 'live' && exit === undefined ? sandboxId : '',
  );
  const ready = [...s.sandboxes.values()].filter(isReady);
  return mapYielding(ready, async (sandbox) => {
    const containers = await Promise.all(
      (running.get(sandbox.id) ?? []).map((container) => containerSeries(s, scrape, sandbox, container)),
    );
    return use({
      sandboxId: sandbox.id,
      pod: podSeries(s, scrape, sandbox),
      containers: containers.filter((series) => series !== undefined),
    });
  });
}

function podSeries(s: Services, scrape: Scrape, sandbox: SandboxRecord): Series[] {
  const { name, namespace } = sandbox.config.metadata;
  const series: Series[] = [];
  const path = scrape.ownCgroup(sandbox);
  const cgroup = path === undefined ? undefined : s.cgroups.details(path, scrape.pageSizes);
  if (path !== undefined && cgroup !== undefined) {
    series.push({
      base: [path, '', '', '', name, namespace],
      timestampNs: cgroup.timestampNs,
      measured: ofCgroup(scrape, cgroup, sandbox.createdAt),
    });
  }
  const network = networkStats(s, sandbox);
  if (network !== undefined) {
    const { timestampNs, interfaces } = network;
    // Dashboards that leave out what has no image want one here, too.
    const base = [sandbox.cgroup.path, sandbox.id, s.config.pause, 'POD', name, namespace];
    series.push({ base, timestampNs, measured: { interfaces, deviceName: scrape.deviceName } });
  }
  return series;
}

async function containerSeries(
  s: Services,
  scrape: Scrape,
  sandbox: SandboxRecord,
  { id, config, init, ...record }: ContainerRecord,
): Promise<PodMetrics['containers'][number] | undefined> {
  await s.guests.refresh([{ id, cgroup: record.cgroup }], handlerOf(s), LIST_AGE_MS);
  const { path } = record.cgroup;
  const guest = s.guests.of(path);
  const cgroup = guest?.details ?? s.cgroups.details(path, scrape.pageSizes);
  if (cgroup === undefined) return undefined;
  const { processes } = cgroup;
  const openFiles =
    guest === undefined ? processes && s.openFiles.of(id, processes, init?.pid) : guest.openFiles;
  const layer = await s.layerUsage.of(id, writableLayer(s.paths, { id, ...record }));
  const now = s.containers.get(id);
  if (now === undefined || now.exit !== undefined) return undefined;
  const { metadata } = sandbox.config;
  const image = config.image.userSpecifiedImage || config.image.image;
  const details = { ...cgroup, cpuLimits: cpuLimits(now, cgroup) };
  return {
    containerId: id,
    base: [record.cgroup.path, id, image, config.metadata.name, metadata.name, metadata.namespace],
    timestampNs: cgroup.timestampNs,
    measured: {
      ...ofCgroup(scrape, details, now.startedAt ?? now.createdAt),
      ...guestOnly(guest),
      filesystem: { ...scrape.filesystem, usedBytes: layer?.usedBytes },
      ...(openFiles === undefined ? {} : { openFiles }),
    },
  };
}

function ofCgroup({ deviceName }: Scrape, cgroup: CgroupDetails, startedAt: bigint): Measured {
  const processes = cgroup.processes && { processes: BigInt(cgroup.processes.length) };
  return { cgroup, ...processes, startedAt, lastSeen: nowNs(), deviceName };
}

/** What is to be told of a container in another kernel in the place of this one's. */
function guestOnly(guest: GuestUsage | undefined): Partial<Measured> {
  if (guest === undefined) return {};
  const { processes, deviceName } = guest;
  return { deviceName, ...(processes === undefined ? {} : { processes }) };
}

/** As they were asked for, where the kernel that has them does not tell, or (v2) has but a weight for the shares. */
function cpuLimits(
  { resources: { cpuShares, cpuQuota, cpuPeriod } }: Pick<ContainerRecord, 'resources'>,
  { cpuLimits: own }: Pick<CgroupDetails, 'cpuLimits'>,
): CgroupDetails['cpuLimits'] {
  return {
    cpuShares: cpuShares ?? own.cpuShares,
    cpuQuota: own.cpuQuota ?? cpuQuota,
    cpuPeriod: own.cpuPeriod ?? cpuPeriod,
  };
}

const UNITS = ['KB', 'MB', 'GB'] as const;

/** Sizes of huge pages of this kernel as cgroup files name them: `2MB`, `1GB`. */
export async function hugePageSizes(dir = '/sys/kernel/mm/hugepages'): Promise<string[]> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT')) return [];
    throw e;
  }
  return names.flatMap((name) => {
    let size = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1]);
    if (Number.isNaN(size)) return [];
    let unit = 0;
    for (; size >= 1024 && unit < UNITS.length - 1; unit++) size /= 1024;
    return [`${size}${UNITS[unit]}`];
  });
}
