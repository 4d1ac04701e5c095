import { parseDetails } from '../../../cgroups/index.ts';
import { parseFlatKeyed } from '../../../cgroups/parse.ts';
import type { CpuStats, Psi, PsiLine } from '../../../cgroups/types.ts';
import type { Result } from '../protocol/messages.ts';

/** Of a container, whose cgroup in the guest is always one of version 2. */
export type ContainerFigures = Result<'stats'>;
export type PodFigures = Result<'podStats'>;

const NS_PER_US = 1_000n;
/** As cgroup v1 shows "no limit": the largest multiple of a page below 2^63. */
const NO_LIMIT_V1 = 9223372036854771712n;

/** Figures as containerd wants them on a host with cgroup v2 (`io.containerd.cgroups.v2.Metrics`). */
export function metricsV2({ files }: ContainerFigures): object {
  const { cpu, memory, memoryDetails, pids, io, psi } = parseDetails(files);
  return {
    pids: { current: plain(pids.current), limit: plain(pids.limit) },
    cpu: { ...cpuV2(texts(cpu)), psi: psiV2(psi?.cpu) },
    memory: {
      // The kernel's names and the message's are the same, where both know the figure.
      ...flat(files['memory.stat']),
      usage: plain(memory.usageBytes),
      usage_limit: String(memory.limitBytes ?? MAX_UINT64),
      swap_usage: plain(memory.swapUsageBytes),
      swap_limit: String(memory.swapLimitBytes ?? MAX_UINT64),
      max_usage: plain(memoryDetails.maxUsageBytes),
      psi: psiV2(psi?.memory),
    },
    memory_events: flat(files['memory.events']),
    io: {
      usage: io.map(({ major, minor, readBytes, writeBytes, reads, writes }) => ({
        ...{
          major: String(major),
          minor: String(minor),
          rbytes: plain(readBytes),
          wbytes: plain(writeBytes),
        },
        ...{ rios: plain(reads), wios: plain(writes) },
      })),
      psi: psiV2(psi?.io),
    },
  };
}

/** "max" of a v2 file, as containerd's own reader has it. */
const MAX_UINT64 = 18446744073709551615n;

/** The same for a host with cgroup v1 (`io.containerd.cgroups.v1.Metrics`): what has a counterpart there. */
export function metricsV1({ files }: ContainerFigures): object {
  const { cpu, memory, memoryDetails, pids, io, oomKills } = parseDetails(files);
  const stat = flat(files['memory.stat']);
  const of = (name: string): string => stat[name] ?? '0';
  const limit = String(memory.limitBytes ?? NO_LIMIT_V1);
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
    pids: { current: plain(pids.current), limit: plain(pids.limit) },
    cpu: cpuV1(texts(cpu)),
    memory: {
      ...both,
      ...total,
      hierarchical_memory_limit: limit,
      usage: {
        ...{ limit, usage: plain(memory.usageBytes), max: plain(memoryDetails.maxUsageBytes) },
        failcnt: plain(memoryDetails.limitHits),
      },
      swap: {
        limit: String(memory.swapLimitBytes ?? NO_LIMIT_V1),
        usage: String((memory.usageBytes ?? 0n) + (memory.swapUsageBytes ?? 0n)),
      },
      kernel: { usage: of('kernel') },
    },
    memory_oom_control: { oom_kill: plain(oomKills) },
    blkio: {
      io_service_bytes_recursive: io.flatMap((d) => entries(d, d.readBytes, d.writeBytes)),
      io_serviced_recursive: io.flatMap((d) => entries(d, d.reads, d.writes)),
    },
  };
}

/** These messages have a 0 for what is not known. */
function plain(value: bigint | undefined): string {
  return String(value ?? 0n);
}

/** As the agent tells the figures of all containers. */
function texts(cpu: CpuStats): PodFigures['cpu'] {
  return {
    ...{ usageNs: plain(cpu.usageNs), userNs: plain(cpu.userNs), systemNs: plain(cpu.systemNs) },
    ...{ periods: plain(cpu.nrPeriods), throttledPeriods: plain(cpu.nrThrottled) },
    throttledNs: plain(cpu.throttledNs),
  };
}

function flat(text: string | undefined): Record<string, string> {
  return Object.fromEntries([...parseFlatKeyed(text)].map(([key, value]) => [key, String(value)]));
}

/** The kernel's numbers, so microseconds again. */
function psiV2(psi: Psi | undefined): object | null {
  if (psi === undefined) return null;
  const line = ({ totalNs, ...averages }: PsiLine) => ({ ...averages, total: String(totalNs / NS_PER_US) });
  return { some: line(psi.some), full: psi.full === undefined ? null : line(psi.full) };
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

function cpuV2(cpu: PodFigures['cpu']): object {
  return {
    ...{ usage_usec: toUs(cpu.usageNs), user_usec: toUs(cpu.userNs), system_usec: toUs(cpu.systemNs) },
    ...{ nr_periods: cpu.periods ?? '0', nr_throttled: cpu.throttledPeriods ?? '0' },
    throttled_usec: toUs(cpu.throttledNs ?? '0'),
  };
}

function cpuV1(cpu: PodFigures['cpu']): object {
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
  read: bigint,
  written: bigint,
): object[] {
  const device = { major: String(major), minor: String(minor) };
  return [
    { op: 'Read', ...device, value: String(read) },
    { op: 'Write', ...device, value: String(written) },
  ];
}
