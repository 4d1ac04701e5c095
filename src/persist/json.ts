import { BerthError, messageOf } from '../errors.ts';

/**
 * JSON for the database's records: bigint (nanoseconds, int64 limits) survives as `{"$bigint":"123"}`.
 * Maps whose keys others chose (labels, annotations, sysctls) are in the records too, so an object that has
 * a key with `$` is kept as `{"$object":[[key,value],…]}` and cannot pass for anything else: a label named
 * `$bigint` would otherwise keep berthd from starting. `undefined` members vanish, as in JSON.
 */
export function encodeRecord(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) => {
    if (typeof v === 'bigint') return { $bigint: v.toString() };
    return isObject(v) && Object.keys(v).some((key) => key.startsWith('$'))
      ? { $object: Object.entries(v) }
      : v;
  });
}

/**
 * The inverse of {@link encodeRecord}; the caller names the type that it stored under this key.
 *
 * @param what the record's table and id, for the error
 * @throws BerthError `internal` when the text is no such JSON
 */
export function decodeRecord<T>(text: string, what: string): T {
  try {
    return revived(JSON.parse(text)) as T;
  } catch (e: unknown) {
    throw new BerthError('internal', `record ${what} in the database: ${messageOf(e)}`, { cause: e });
  }
}

/**
 * Puts back what {@link encodeRecord} has replaced, inside first, in place. JSON.parse with a reviver takes twice the
 * time, of which a start with many pods has little.
 */
function revived(v: object): unknown {
  // Those of an array, too.
  for (const [key, member] of Object.entries(v)) {
    if (typeof member !== 'object' || member === null) continue;
    const value = revived(member);
    // An assignment to a label named __proto__ would be none.
    if (value !== member) Object.defineProperty(v, key, { value });
  }
  if (!isObject(v)) return v;
  if (typeof v.$bigint === 'string') return BigInt(v.$bigint);
  return Array.isArray(v.$object) ? Object.fromEntries(v.$object as [string, unknown][]) : v;
}

function isObject(v: unknown): v is Record<string, unknown> {
  return typeof v === 'object' && v !== null && !Array.isArray(v);
}
