import { CgroupError } from '../io.ts';
import { parseUint } from '../parse.ts';
import type { Resources } from '../types.ts';
import { swapOnly } from '../v2/memory.ts';
import { sharesToWeight } from '../weight.ts';

/** A unit property as busctl takes it: name, D-Bus type, value (an array as count and elements). */
export type Property = readonly [name: string, type: 's' | 'b' | 't' | 'au' | 'ay', ...value: string[]];

/** UINT64_MAX, which systemd calls infinity. */
export const INFINITY = (1n << 64n) - 1n;

const DEFAULT_PERIOD_US = 100_000n;

/** Highest CPU or memory node number accepted in a list; the kernel's own limit is 8192 CPUs. */
const MAX_LIST_INDEX = 8191;

function uint(name: string, value: bigint): Property {
  return [name, 't', `${value < 0n ? INFINITY : value}`];
}

/**
 * A cpuset list (`0-3,8`) as systemd's byte array, least significant bit first.
 * @throws CgroupError EINVAL
 */
export function listToBytes(list: string): number[] {
  const bytes: number[] = [];
  for (const range of list.trim().split(',')) {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(range.trim());
    const [from, to] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
    if (match === null || from > to || to > MAX_LIST_INDEX) {
      throw new CgroupError(
        'EINVAL',
        list,
        `${JSON.stringify(list)} is not a list of CPUs or nodes such as "0-3,8"`,
      );
    }
    for (let bit = from; bit <= to; bit++) {
      const index = Math.floor(bit / 8);
      while (bytes.length <= index) bytes.push(0);
      bytes[index] = (bytes[index] ?? 0) | (1 << (bit % 8));
    }
  }
  return bytes;
}

function byteList(name: string, list: string): Property {
  const bytes = listToBytes(list);
  return [name, 'ay', `${bytes.length}`, ...bytes.map(String)];
}

/** systemd keeps the quota per second and rounds down to whole percents of a CPU, so it is rounded up here. */
function quota(quotaUs: bigint | undefined, periodUs: bigint | undefined, now: Resources): Property[] {
  if (quotaUs === undefined && periodUs === undefined) return [];
  const period = periodUs ?? now.cpuPeriod ?? DEFAULT_PERIOD_US;
  const wanted = quotaUs ?? now.cpuQuota ?? -1n;
  const percent = 10_000n;
  const perSecond = wanted < 0n || period <= 0n ? -1n : (wanted * 1_000_000n) / period;
  const rounded = perSecond < 0n ? -1n : ((perSecond + percent - 1n) / percent) * percent;
  return [uint('CPUQuotaPeriodUSec', period), uint('CPUQuotaPerSecUSec', rounded)];
}

/** Properties of systemd.resource-control(5) for v1 limits; systemd has none for v1 cpusets and swap. */
export function v1Properties(r: Resources, now: Resources): Property[] {
  return [
    ...(r.cpuShares === undefined ? [] : [uint('CPUShares', r.cpuShares)]),
    ...quota(r.cpuQuota, r.cpuPeriod, now),
    ...(r.memoryLimitBytes === undefined ? [] : [uint('MemoryLimit', r.memoryLimitBytes)]),
    ...(r.pidsLimit === undefined ? [] : [uint('TasksMax', r.pidsLimit)]),
  ];
}

/** The v2 files that systemd writes itself, and would write again with its own idea of their value. */
function unifiedProperties(unified: Readonly<Record<string, string>>): Property[] {
  const names: Record<string, string> = {
    'cpu.weight': 'CPUWeight',
    'memory.high': 'MemoryHigh',
    'memory.low': 'MemoryLow',
    'memory.max': 'MemoryMax',
    'memory.min': 'MemoryMin',
    'memory.swap.max': 'MemorySwapMax',
    'pids.max': 'TasksMax',
  };
  const out: Property[] = [];
  for (const [file, text] of Object.entries(unified)) {
    const name = names[file];
    const value = text.trim();
    if (name !== undefined) {
      const limit = value === 'max' ? -1n : parseUint(value);
      if (limit !== undefined) out.push(uint(name, limit));
    } else if (file === 'cpu.max') {
      const [max, period] = value.split(/\s+/);
      out.push(...quota(max === 'max' ? -1n : parseUint(max), parseUint(period), {}));
    } else if (file === 'cpuset.cpus') out.push(byteList('AllowedCPUs', value));
    else if (file === 'cpuset.mems') out.push(byteList('AllowedMemoryNodes', value));
  }
  return out;
}

/**
 * Properties of systemd.resource-control(5) for v2 limits. `unified` comes last, and systemd takes the
 * last value of a property.
 * @param now what the cgroup has, for limits that depend on one that is not given
 */
export function v2Properties(r: Resources, now: Resources): Property[] {
  const memory = r.memoryLimitBytes ?? now.memoryLimitBytes;
  const swap = r.memorySwapLimitBytes ?? (r.memoryLimitBytes === -1n ? -1n : undefined);
  return [
    ...(r.cpuShares === undefined ? [] : [uint('CPUWeight', sharesToWeight(r.cpuShares))]),
    ...quota(r.cpuQuota, r.cpuPeriod, now),
    ...(r.memoryLimitBytes === undefined ? [] : [uint('MemoryMax', r.memoryLimitBytes)]),
    ...(swap === undefined ? [] : [uint('MemorySwapMax', swapOnly('memory.swap.max', memory, swap))]),
    ...(r.pidsLimit === undefined ? [] : [uint('TasksMax', r.pidsLimit)]),
    ...(r.cpusetCpus ? [byteList('AllowedCPUs', r.cpusetCpus)] : []),
    ...(r.cpusetMems ? [byteList('AllowedMemoryNodes', r.cpusetMems)] : []),
    ...unifiedProperties(r.unified ?? {}),
  ];
}
