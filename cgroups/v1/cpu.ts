import { errnoOf, type ReadFile, readOptional, write } from '../io.ts';
import { parseFlatKeyed, parseInt64, parseUint } from '../parse.ts';
import type { CpuStats, Resources } from '../types.ts';

/** USER_HZ, the unit of cpuacct.stat: 100 on every architecture that Node runs on. */
const NS_PER_TICK = 10_000_000n;

/** @param cpu directory in the cpu hierarchy @param cpuacct directory in the cpuacct hierarchy */
export function stats(
  cpu: string | undefined,
  cpuacct: string | undefined,
  readFile: ReadFile = readOptional,
): CpuStats {
  const bandwidth = parseFlatKeyed(cpu === undefined ? undefined : readFile(cpu, 'cpu.stat'));
  const read = (file: string) => (cpuacct === undefined ? undefined : readFile(cpuacct, file));
  let userNs = parseUint(read('cpuacct.usage_user'));
  let systemNs = parseUint(read('cpuacct.usage_sys'));
  if (userNs === undefined || systemNs === undefined) {
    // Before kernel 4.6 there were only ticks.
    const ticks = parseFlatKeyed(read('cpuacct.stat'));
    const toNs = (value: bigint | undefined) => (value === undefined ? undefined : value * NS_PER_TICK);
    userNs = toNs(ticks.get('user'));
    systemNs = toNs(ticks.get('system'));
  }
  return {
    usageNs: cpuacct === undefined ? undefined : usageNs(cpuacct, readFile),
    userNs,
    systemNs,
    nrPeriods: bandwidth.get('nr_periods'),
    nrThrottled: bandwidth.get('nr_throttled'),
    // Nanoseconds here, microseconds (throttled_usec) on v2.
    throttledNs: bandwidth.get('throttled_time'),
  };
}

/** @param cpuacct directory in the cpuacct hierarchy */
export function usageNs(cpuacct: string, read: ReadFile = readOptional): bigint | undefined {
  return parseUint(read(cpuacct, 'cpuacct.usage'));
}

export function readResources(dir: string, read: ReadFile = readOptional): Resources {
  return {
    cpuShares: parseUint(read(dir, 'cpu.shares')),
    cpuPeriod: parseUint(read(dir, 'cpu.cfs_period_us')),
    cpuQuota: parseInt64(read(dir, 'cpu.cfs_quota_us')),
  };
}

export async function update(dir: string, r: Resources): Promise<void> {
  if (r.cpuShares !== undefined) await write(dir, 'cpu.shares', `${r.cpuShares}`);
  let periodLeft = r.cpuPeriod;
  if (periodLeft !== undefined) {
    try {
      await write(dir, 'cpu.cfs_period_us', `${periodLeft}`);
      periodLeft = undefined;
    } catch (e) {
      // The ratio of the old quota to the new period may exceed the parent's; with the new quota
      // written first it does not.
      if (errnoOf(e) !== 'EINVAL' || r.cpuQuota === undefined) throw e;
    }
  }
  if (r.cpuQuota !== undefined) await write(dir, 'cpu.cfs_quota_us', `${r.cpuQuota}`);
  if (periodLeft !== undefined) await write(dir, 'cpu.cfs_period_us', `${periodLeft}`);
}
