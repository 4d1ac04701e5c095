const [MIN_SHARES, MAX_SHARES] = [2n, 262_144n];

/**
 * cpu.shares (2 to 262144, default 1024) → cpu.weight (1 to 10000, default 100), by the curve through
 * all three pairs that runc has used since 1.3.2, crun since 1.23 and the kubelet for pods:
 * log10(weight) = (l² + 125·l) / 612 − 7/34 with l = log2(shares), rounded up. Older runc (Debian 12's
 * 1.1.5) takes the straight line between the ends, which makes 39 of 1024; a spec that sets
 * `unified["cpu.weight"]` from this function gets the same weight from either.
 */
export function sharesToWeight(shares: bigint): bigint {
  if (shares <= MIN_SHARES) return 1n;
  if (shares >= MAX_SHARES) return 10_000n;
  const l = Math.log2(Number(shares));
  return BigInt(Math.ceil(10 ** ((l * l + 125 * l) / 612 - 7 / 34)));
}

/**
 * The inverse of {@link sharesToWeight}, as near as its rounding allows: many shares have one weight.
 * Whoever must echo shares keeps what was given instead of asking here.
 */
export function weightToShares(weight: bigint): bigint {
  if (weight <= 1n) return MIN_SHARES;
  if (weight >= 10_000n) return MAX_SHARES;
  const c = 612 * (Math.log10(Number(weight)) + 7 / 34);
  const l = (Math.sqrt(125 * 125 + 4 * c) - 125) / 2;
  return BigInt(Math.round(2 ** l));
}
