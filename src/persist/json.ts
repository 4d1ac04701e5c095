/**
 * JSON for the database's records: bigint (nanoseconds, int64 limits) survives as `{"$bigint":"123"}`,
 * which no record of ours spells otherwise. `undefined` members vanish, as in JSON.
 */
export function encodeRecord(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) => (typeof v === 'bigint' ? { $bigint: v.toString() } : v));
}

/** The inverse of {@link encodeRecord}; the caller names the type that it stored under this key. */
export function decodeRecord<T>(text: string): T {
  return JSON.parse(text, (_key, v: unknown) =>
    typeof v === 'object' && v !== null && '$bigint' in v && typeof v.$bigint === 'string'
      ? BigInt(v.$bigint)
      : v,
  ) as T;
}
