import type { CgroupDetails, IoDeviceStats } from '../../../cgroups/types.ts';
import type { TaskStats } from '../../shim/task.ts';
import { nowNs } from '../../util/nanoseconds.ts';

type MetricsV1 = Extract<TaskStats, { cgroup: 'v1' }>['metrics'];
type MetricsV2 = Extract<TaskStats, { cgroup: 'v2' }>['metrics'];

/** More than any machine has: how both versions write "no limit". */
const NO_LIMIT = 1n << 62n;

/** What a shim tells of a container, as if it had been read from a cgroup. What it does not tell is undefined. */
export function toDetails(stats: TaskStats): CgroupDetails {
  const own = stats.cgroup === 'v1' ? fromV1(stats.metrics) : fromV2(stats.metrics);
  return { timestampNs: nowNs(), psi: undefined, hugepages: [], cpuLimits: {}, processes: undefined, ...own };
}

type Figures = Pick<CgroupDetails, 'cpu' | 'memory' | 'memoryDetails' | 'pids' | 'io' | 'oomKills'>;

function fromV1({ cpu, memory, pids, blkio, memory_oom_control }: MetricsV1): Figures {
  const usage = count(memory?.usage?.usage);
  const swapAndMemory = count(memory?.swap?.usage);
  const bothLimit = limit(memory?.swap?.limit);
  const memoryLimit = limit(memory?.usage?.limit);
  return {
    cpu: {
      usageNs: count(cpu?.usage?.total),
      userNs: count(cpu?.usage?.user),
      systemNs: count(cpu?.usage?.kernel),
      nrPeriods: count(cpu?.throttling?.periods),
      nrThrottled: count(cpu?.throttling?.throttled_periods),
      throttledNs: count(cpu?.throttling?.throttled_time),
    },
    ...memoryOf({
      usage,
      limit: memoryLimit,
      inactiveFile: count(memory?.total_inactive_file),
      activeFile: count(memory?.total_active_file),
      rss: count(memory?.total_rss),
      cache: count(memory?.total_cache),
      mappedFile: count(memory?.total_mapped_file),
      kernel: count(memory?.kernel?.usage),
      faults: count(memory?.total_pg_fault),
      majorFaults: count(memory?.total_pg_maj_fault),
      max: count(memory?.usage?.max),
      hits: count(memory?.usage?.failcnt),
      swap:
        usage === undefined || swapAndMemory === undefined ? undefined : atLeastZero(swapAndMemory - usage),
      swapLimit:
        bothLimit === undefined || memoryLimit === undefined
          ? undefined
          : atLeastZero(bothLimit - memoryLimit),
    }),
    pids: { current: count(pids?.current), limit: limit(pids?.limit) },
    io: ioV1(blkio),
    oomKills: count(memory_oom_control?.oom_kill),
  };
}

function fromV2({ cpu, memory, memory_events, pids, io }: MetricsV2): Figures {
  return {
    cpu: {
      usageNs: microseconds(cpu?.usage_usec),
      userNs: microseconds(cpu?.user_usec),
      systemNs: microseconds(cpu?.system_usec),
      nrPeriods: count(cpu?.nr_periods),
      nrThrottled: count(cpu?.nr_throttled),
      throttledNs: microseconds(cpu?.throttled_usec),
    },
    ...memoryOf({
      usage: count(memory?.usage),
      limit: limit(memory?.usage_limit),
      inactiveFile: count(memory?.inactive_file),
      activeFile: count(memory?.active_file),
      rss: count(memory?.anon),
      cache: count(memory?.file),
      mappedFile: count(memory?.file_mapped),
      kernel: undefined,
      faults: count(memory?.pgfault),
      majorFaults: count(memory?.pgmajfault),
      max: undefined,
      hits: count(memory_events?.max),
      swap: count(memory?.swap_usage),
      swapLimit: limit(memory?.swap_limit),
    }),
    pids: { current: count(pids?.current), limit: limit(pids?.limit) },
    io: (io?.usage ?? []).map((entry) => ({
      ...{ major: Number(entry.major), minor: Number(entry.minor) },
      ...{ readBytes: BigInt(entry.rbytes), writeBytes: BigInt(entry.wbytes) },
      ...{ reads: BigInt(entry.rios), writes: BigInt(entry.wios) },
    })),
    oomKills: count(memory_events?.oom_kill),
  };
}

type MemoryFigures = Record<
  | ('usage' | 'limit' | 'inactiveFile' | 'activeFile' | 'rss' | 'cache' | 'mappedFile' | 'kernel')
  | ('faults' | 'majorFaults' | 'max' | 'hits' | 'swap' | 'swapLimit'),
  bigint | undefined
>;

function memoryOf(m: MemoryFigures): Pick<Figures, 'memory' | 'memoryDetails'> {
  const workingSet =
    m.usage === undefined || m.inactiveFile === undefined ? undefined : atLeastZero(m.usage - m.inactiveFile);
  const available =
    m.limit === undefined || workingSet === undefined ? undefined : atLeastZero(m.limit - workingSet);
  return {
    memory: {
      ...{ usageBytes: m.usage, limitBytes: m.limit, workingSetBytes: workingSet, rssBytes: m.rss },
      ...{ cacheBytes: m.cache, availableBytes: available, pageFaults: m.faults },
      ...{ majorPageFaults: m.majorFaults, swapUsageBytes: m.swap, swapLimitBytes: m.swapLimit },
    },
    memoryDetails: {
      ...{ kernelBytes: m.kernel, mappedFileBytes: m.mappedFile, activeFileBytes: m.activeFile },
      ...{ inactiveFileBytes: m.inactiveFile, maxUsageBytes: m.max, limitHits: m.hits },
      ...{ reservationBytes: undefined, ownPageFaults: undefined, ownMajorPageFaults: undefined },
    },
  };
}

function ioV1(blkio: MetricsV1['blkio']): IoDeviceStats[] {
  const devices = new Map<string, IoDeviceStats>();
  const lists = [
    ['Read', 'readBytes', blkio?.io_service_bytes_recursive],
    ['Write', 'writeBytes', blkio?.io_service_bytes_recursive],
    ['Read', 'reads', blkio?.io_serviced_recursive],
    ['Write', 'writes', blkio?.io_serviced_recursive],
  ] as const;
  for (const [op, field, entries] of lists) {
    for (const { major, minor, value } of (entries ?? []).filter((entry) => entry.op === op)) {
      const nothing = { readBytes: 0n, writeBytes: 0n, reads: 0n, writes: 0n };
      const key = `${major}:${minor}`;
      const known = devices.get(key) ?? { major: Number(major), minor: Number(minor), ...nothing };
      devices.set(key, { ...known, [field]: BigInt(value) });
    }
  }
  return [...devices.values()];
}

function count(text: string | undefined): bigint | undefined {
  return text === undefined ? undefined : BigInt(text);
}

function limit(text: string | undefined): bigint | undefined {
  const value = count(text);
  return value === undefined || value === 0n || value > NO_LIMIT ? undefined : value;
}

function microseconds(text: string | undefined): bigint | undefined {
  const value = count(text);
  return value === undefined ? undefined : value * 1_000n;
}

function atLeastZero(value: bigint): bigint {
  return value < 0n ? 0n : value;
}
