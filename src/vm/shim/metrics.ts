import type { Result } from '../protocol/messages.ts';

/** Of a container's cgroup in the guest, which is always one of version 2. */
export type ContainerFigures = Result<'stats'>;
export type PodFigures = Result<'podStats'>;

const NS_PER_US = 1_000n;
/** As cgroup v1 shows "no limit": the largest multiple of a page below 2^63. */
const NO_LIMIT_V1 = '9223372036854771712';

/** Figures as containerd wants them on a host with cgroup v2 (`io.containerd.cgroups.v2.Metrics`). */
export function metricsV2({ cpu, memory, pids, io }: ContainerFigures): object {
  const { stat, events } = memory;
  return {
    pids,
    cpu: cpuV2(cpu),
    memory: {
      // The kernel's names and the message's are the same, where both know the figure.
      ...stat,
      usage: memory.usageBytes,
      usage_limit: memory.limitBytes ?? MAX_UINT64,
      swap_usage: memory.swapUsageBytes ?? '0',
      swap_limit: memory.swapLimitBytes ?? MAX_UINT64,
      max_usage: memory.peakBytes ?? '0',
    },
    memory_events: events,
    io: {
      usage: io.map(({ major, minor, readBytes, writeBytes, reads, writes }) => ({
        ...{ major: String(major), minor: String(minor), rbytes: readBytes, wbytes: writeBytes },
        ...{ rios: reads, wios: writes },
      })),
    },
  };
}

/** "max" of a v2 file, as containerd's own reader has it. */
const MAX_UINT64 = '18446744073709551615';

/** The same for a host with cgroup v1 (`io.containerd.cgroups.v1.Metrics`): what has a counterpart there. */
export function metricsV1({ cpu, memory, pids, io }: ContainerFigures): object {
  const { stat, events } = memory;
  const of = (name: string): string => stat[name] ?? '0';
  const limit = memory.limitBytes ?? NO_LIMIT_V1;
  const memorySwap = String(BigInt(memory.usageBytes) + BigInt(memory.swapUsageBytes ?? '0'));
  const both = {
    ...{ cache: of('file'), rss: of('anon'), rss_huge: of('anon_thp'), mapped_file: of('file_mapped') },
    ...{ dirty: of('file_dirty'), writeback: of('file_writeback') },
    ...{ pg_fault: of('pgfault'), pg_maj_fault: of('pgmajfault') },
    ...{ inactive_anon: of('inactive_anon'), active_anon: of('active_anon') },
    ...{ inactive_file: of('inactive_file'), active_file: of('active_file') },
    unevictable: of('unevictable'),
  };
  const total = Object.fromEntries(Object.entries(both).map(([name, value]) => [`total_${name}`, value]));
  return {
    pids,
    cpu: cpuV1(cpu),
    memory: {
      ...both,
      ...total,
      hierarchical_memory_limit: limit,
      usage: {
        ...{ limit, usage: memory.usageBytes, max: memory.peakBytes ?? '0', failcnt: events.max ?? '0' },
      },
      swap: { limit: memory.swapLimitBytes ?? NO_LIMIT_V1, usage: memorySwap },
      kernel: { usage: of('kernel') },
    },
    memory_oom_control: { oom_kill: events.oom_kill ?? '0' },
    blkio: {
      io_service_bytes_recursive: io.flatMap((d) => entries(d, d.readBytes, d.writeBytes)),
      io_serviced_recursive: io.flatMap((d) => entries(d, d.reads, d.writes)),
    },
  };
}

/** A sandbox's: all of its containers, and its network as the guest counts it. */
export function podMetrics({ cpu, memory, interfaces }: PodFigures, mode: 'v1' | 'v2'): object {
  const used = String(BigInt(memory.total) - BigInt(memory.available));
  const network = interfaces.map((i) => ({
    ...{ name: i.name, rx_bytes: i.rxBytes, rx_packets: i.rxPackets, rx_errors: i.rxErrors },
    ...{ rx_dropped: i.rxDropped, tx_bytes: i.txBytes, tx_packets: i.txPackets },
    ...{ tx_errors: i.txErrors, tx_dropped: i.txDropped },
  }));
  if (mode === 'v2') return { cpu: cpuV2(cpu), memory: { usage: used, usage_limit: memory.total }, network };
  return { cpu: cpuV1(cpu), memory: { usage: { usage: used, limit: memory.total } }, network };
}

function cpuV2(cpu: ContainerFigures['cpu']): object {
  return {
    ...{ usage_usec: toUs(cpu.usageNs), user_usec: toUs(cpu.userNs), system_usec: toUs(cpu.systemNs) },
    ...{ nr_periods: cpu.periods ?? '0', nr_throttled: cpu.throttledPeriods ?? '0' },
    throttled_usec: toUs(cpu.throttledNs ?? '0'),
  };
}

function cpuV1(cpu: ContainerFigures['cpu']): object {
  return {
    usage: { total: cpu.usageNs, kernel: cpu.systemNs, user: cpu.userNs },
    throttling: {
      ...{ periods: cpu.periods ?? '0', throttled_periods: cpu.throttledPeriods ?? '0' },
      throttled_time: cpu.throttledNs ?? '0',
    },
  };
}

function toUs(ns: string): string {
  return String(BigInt(ns) / NS_PER_US);
}

function entries(
  { major, minor }: { major: number; minor: number },
  read: string,
  written: string,
): object[] {
  const device = { major: String(major), minor: String(minor) };
  return [
    { op: 'Read', ...device, value: read },
    { op: 'Write', ...device, value: written },
  ];
}
