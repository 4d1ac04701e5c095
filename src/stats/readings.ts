import type { CgroupManager, CgroupUsage } from '../../cgroups/types.ts';

/** What a cgroup used when it was read last. */
export interface Reading {
  readonly usage: CgroupUsage;
  /** CPU time over the last measured interval, nanoseconds per second; undefined until there is one. */
  readonly nanoCores: bigint | undefined;
}

/** A point from which a rate is measured. */
interface Baseline {
  /** Milliseconds of a clock that never jumps. */
  readonly at: number;
  readonly usageNs: bigint;
}

interface Entry {
  baseline: Baseline | undefined;
  /** Over the last whole interval. */
  rate?: bigint;
  cached?: { readonly at: number; readonly reading: Reading };
}

/** Two readings closer together than this say nothing of the rate, milliseconds. */
const MIN_INTERVAL_MS = 100;

/**
 * The last reading of each cgroup, and its CPU rate. The rate is that of the sampler's interval, the same
 * for whoever asks; before the first interval is over it is that since the cgroup was first seen.
 */
export class Readings {
  readonly #cgroups: Pick<CgroupManager, 'usage' | 'cpuUsageNs'>;
  readonly #intervalMs: number;
  readonly #now: () => number;
  readonly #entries = new Map<string, Entry>();

  /** @param intervalMs between two samples */
  constructor(
    cgroups: Pick<CgroupManager, 'usage' | 'cpuUsageNs'>,
    intervalMs: number,
    now: () => number = () => performance.now(),
  ) {
    this.#cgroups = cgroups;
    this.#intervalMs = intervalMs;
    this.#now = now;
  }

  /**
   * What a cgroup uses; undefined when it is not there (any more). Its timestamp tells when it was read.
   *
   * @param maxAgeMs answers a reading that is not older than this instead of reading again
   */
  read(path: string, maxAgeMs = 0): Reading | undefined {
    const entry = this.#entry(path);
    const at = this.#now();
    if (entry.cached !== undefined && at - entry.cached.at < maxAgeMs) return entry.cached.reading;
    const usage = this.#cgroups.usage(path);
    if (usage === undefined) {
      this.#entries.delete(path);
      return undefined;
    }
    const reading = { usage, nanoCores: currentRate(entry, at, usage.cpu.usageNs) };
    entry.cached = { at, reading };
    return reading;
  }

  /** Measures a cgroup's CPU rate since the last sample. */
  sample(path: string): void {
    const entry = this.#entry(path);
    const at = this.#now();
    const usageNs = this.#cgroups.cpuUsageNs(path);
    if (usageNs === undefined) return;
    const baseline = baselineOf(entry, at, usageNs);
    // One that was first seen a moment ago is measured at the next sample.
    if (at - baseline.at < this.#intervalMs / 2) return;
    entry.rate = rate(baseline, at, usageNs);
    entry.baseline = { at, usageNs };
  }

  /** Forgets all other cgroups. */
  retain(paths: ReadonlySet<string>): void {
    for (const path of this.#entries.keys()) if (!paths.has(path)) this.#entries.delete(path);
  }

  #entry(path: string): Entry {
    const known = this.#entries.get(path);
    if (known !== undefined) return known;
    const entry: Entry = { baseline: undefined };
    this.#entries.set(path, entry);
    return entry;
  }
}

/** What to measure from: this very reading where there is nothing else, or where the counter began anew. */
function baselineOf(entry: Entry, at: number, usageNs: bigint): Baseline {
  if (entry.baseline !== undefined && usageNs >= entry.baseline.usageNs) return entry.baseline;
  entry.baseline = { at, usageNs };
  delete entry.rate;
  return entry.baseline;
}

function currentRate(entry: Entry, at: number, usageNs: bigint | undefined): bigint | undefined {
  if (usageNs === undefined) return undefined;
  const baseline = baselineOf(entry, at, usageNs);
  if (entry.rate !== undefined) return entry.rate;
  return at - baseline.at < MIN_INTERVAL_MS ? undefined : rate(baseline, at, usageNs);
}

/** Nanoseconds per second since the baseline. */
function rate(baseline: Baseline, at: number, usageNs: bigint): bigint {
  return ((usageNs - baseline.usageNs) * 1_000_000n) / BigInt(Math.round((at - baseline.at) * 1000));
}
