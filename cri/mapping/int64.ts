import type { Long } from '@grpc/proto-loader';

/**
 * A number of 64 bits, not negative, for a field of a message, as a number or, beyond 2^53, as its halves.
 * Digits take three times as long to encode, which in lists of statistics is most of the time.
 */
export function int64(value: bigint): number | Long {
  if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
  const low = Number(BigInt.asIntN(32, value));
  const high = Number(BigInt.asIntN(32, value >> 32n));
  return { low, high, unsigned: true } as Long;
}
