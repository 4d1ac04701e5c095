import { type ReadFile, readOptional, write } from '../io.ts';
import { flatReader, parseMax, parseUint } from '../parse.ts';
import type { CpuStats, Resources } from '../types.ts';
import { sharesToWeight, weightToShares } from '../weight.ts';

/** cpu.stat has usage even where the cpu controller is not enabled; the nr_* lines only where it is. */
export function stats(dir: string, read: ReadFile = readOptional): CpuStats {
  const stat = flatReader(read(dir, 'cpu.stat'));
  const ns = (key: string) => {
    const usec = stat(key);
    return usec === undefined ? undefined : usec * 1000n;
  };
  return {
    usageNs: ns('usage_usec'),
    userNs: ns('user_usec'),
    systemNs: ns('system_usec'),
    nrPeriods: stat('nr_periods'),
    nrThrottled: stat('nr_throttled'),
    throttledNs: ns('throttled_usec'),
  };
}

/** CPU time so far, nanoseconds. */
export function usageNs(dir: string, read: ReadFile = readOptional): bigint | undefined {
  const usec = flatReader(read(dir, 'cpu.stat'))('usage_usec');
  return usec === undefined ? undefined : usec * 1000n;
}

export function readResources(dir: string, read: ReadFile = readOptional): Resources {
  const weight = parseUint(read(dir, 'cpu.weight'));
  const [quota, period] = (read(dir, 'cpu.max') ?? '').trim().split(' ');
  return {
    // 0 is what cpu.weight reads as when cpu.idle is set.
    cpuShares: weight === undefined ? undefined : weightToShares(weight),
    cpuQuota: parseMax(quota),
    cpuPeriod: parseUint(period),
  };
}

export async function update(dir: string, r: Resources): Promise<void> {
  if (r.cpuShares !== undefined) await write(dir, 'cpu.weight', `${sharesToWeight(r.cpuShares)}`);
  if (r.cpuQuota === undefined && r.cpuPeriod === undefined) return;
  const now = readResources(dir);
  const quota = r.cpuQuota ?? now.cpuQuota ?? -1n;
  const period = r.cpuPeriod ?? now.cpuPeriod;
  const parts = [quota < 0n ? 'max' : `${quota}`, ...(period === undefined ? [] : [`${period}`])];
  await write(dir, 'cpu.max', parts.join(' '));
}
