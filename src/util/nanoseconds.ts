const NS_PER_MS = 1_000_000n;
// performance.timeOrigin has microseconds; a Date alone would give many objects of a pod the same time.
const ORIGIN_NS = BigInt(Math.round(performance.timeOrigin * 1000)) * 1000n;

/** Now, in nanoseconds since the epoch, as CRI wants its times. */
export function nowNs(): bigint {
  return ORIGIN_NS + BigInt(Math.round(performance.now() * 1e6));
}

/** Milliseconds since the epoch (a file's mtime) as nanoseconds. */
export function msToNs(ms: number): bigint {
  return BigInt(Math.round(ms * 1000)) * (NS_PER_MS / 1000n);
}
