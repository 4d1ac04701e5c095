import { readFileSync } from 'node:fs';
import { parseDevice, parseFlatKeyed, parseNestedKeyed, parseUint } from '../../../cgroups/parse.ts';
import { isErrno, notFound } from '../../errors.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import type { GuestContainerStats, Result } from '../protocol/messages.ts';
import { CGROUP_ROOT, CONTAINERS_CGROUP } from './system.ts';

const NS_PER_US = 1000n;
const KIB = 1024n;

type Cpu = GuestContainerStats['cpu'];

/**
 * The kernel makes these files on demand and never waits for it: through the thread pool they would take ten times as
 * long.
 *
 * @throws BerthError `notFound` when the cgroup is gone
 */
export function containerStats(cgroup: string): GuestContainerStats {
  const read = (name: string) => readOptional(`${cgroup}/${name}`);
  const timestampNs = String(nowNs());
  const [current, cpu, stat, events, ...rest] = [
    ...['memory.current', 'cpu.stat', 'memory.stat', 'memory.events', 'memory.max', 'memory.peak'],
    ...['memory.swap.current', 'memory.swap.max', 'pids.current', 'pids.max', 'io.stat'],
  ].map(read);
  if (current === undefined) throw notFound(`cgroup ${cgroup}`);
  const [max, peak, swap, swapMax, pids, pidsMax, io] = rest;
  return {
    timestampNs,
    cpu: cpuStats(cpu),
    memory: {
      usageBytes: text(parseUint(current)) ?? '0',
      ...optional('limitBytes', max),
      ...optional('peakBytes', peak),
      ...optional('swapUsageBytes', swap),
      ...optional('swapLimitBytes', swapMax),
      stat: record(stat),
      events: record(events),
    },
    pids: { current: text(parseUint(pids)) ?? '0', ...optional('limit', pidsMax) },
    io: ioStats(io),
  };
}

/** Of all containers together, and of what they share. */
export function podStats(): Result<'podStats'> {
  const meminfo = readFileSync('/proc/meminfo', 'utf8');
  return {
    memory: {
      total: memoryField(meminfo, 'MemTotal'),
      free: memoryField(meminfo, 'MemFree'),
      available: memoryField(meminfo, 'MemAvailable'),
      cached: memoryField(meminfo, 'Cached'),
    },
    interfaces: interfaceStats(readFileSync('/proc/net/dev', 'utf8')),
    cpu: cpuStats(readOptional(`${CGROUP_ROOT}${CONTAINERS_CGROUP}/cpu.stat`)),
  };
}

/** Undefined for a file that this kernel does not have, or that is gone with its cgroup. */
function readOptional(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENODEV')) return undefined;
    throw e;
  }
}

/** Bytes of a line of /proc/meminfo. */
export function memoryField(meminfo: string, name: string): string {
  const kib = new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(meminfo)?.[1] ?? '0';
  return String(BigInt(kib) * KIB);
}

function cpuStats(stat: string | undefined): Cpu {
  const values = parseFlatKeyed(stat);
  const ns = (key: string) => String((values.get(key) ?? 0n) * NS_PER_US);
  const [periods, throttled] = [values.get('nr_periods'), values.get('nr_throttled')];
  return {
    usageNs: ns('usage_usec'),
    userNs: ns('user_usec'),
    systemNs: ns('system_usec'),
    ...(periods === undefined ? {} : { periods: String(periods) }),
    ...(throttled === undefined ? {} : { throttledPeriods: String(throttled) }),
    ...(values.has('throttled_usec') ? { throttledNs: ns('throttled_usec') } : {}),
  };
}

function ioStats(io: string | undefined): GuestContainerStats['io'] {
  return [...parseNestedKeyed(io)].flatMap(([name, values]) => {
    const device = parseDevice(name);
    const value = (key: string) => values.get(key) ?? '0';
    return device === undefined
      ? []
      : [
          {
            ...device,
            ...{ readBytes: value('rbytes'), writeBytes: value('wbytes') },
            ...{ reads: value('rios'), writes: value('wios') },
          },
        ];
  });
}

/** Of /proc/net/dev: received bytes, packets, errors, drops, and four more; then the same sent. */
export function interfaceStats(dev: string): Result<'podStats'>['interfaces'] {
  return [...dev.matchAll(/^ *([^\s:]+):(.*)$/gm)].flatMap(([, name = '', rest = '']) => {
    const fields = rest.trim().split(/\s+/);
    const at = (index: number) => fields[index] ?? '0';
    if (fields.length < 16 || name === 'lo') return [];
    return [
      {
        name,
        ...{ rxBytes: at(0), rxPackets: at(1), rxErrors: at(2), rxDropped: at(3) },
        ...{ txBytes: at(8), txPackets: at(9), txErrors: at(10), txDropped: at(11) },
      },
    ];
  });
}

function record(stat: string | undefined): Record<string, string> {
  return Object.fromEntries([...parseFlatKeyed(stat)].map(([key, value]) => [key, String(value)]));
}

/** A value unless the kernel has none or it is `max`. */
function optional<K extends string>(key: K, value: string | undefined): { [P in K]?: string } {
  const number = text(parseUint(value));
  return number === undefined ? {} : ({ [key]: number } as { [P in K]?: string });
}

function text(value: bigint | undefined): string | undefined {
  return value === undefined ? undefined : String(value);
}
