/**
 * JSON for and from OCI programs, whose integers are 64 bits wide while JavaScript's numbers are exact
 * to 53 bits only. `JSON.rawJSON` and the reviver's context are in V8 since 11.4 but not yet in
 * TypeScript's es2024 library, hence the casts.
 */
interface RawJson {
  rawJSON(text: string): unknown;
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown;
}

const rawJson = JSON as unknown as RawJson;

/** The text of a config.json or process.json; a bigint becomes a plain JSON integer. */
export function stringifyOci(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) =>
    typeof v === 'bigint' ? rawJson.rawJSON(v.toString()) : v,
  );
}

/** Integers beyond 2^53 become bigint, all other values what JSON.parse makes of them. */
export function parseOci(text: string): unknown {
  return rawJson.parse(text, (_key, v, { source }) => {
    if (typeof v !== 'number' || Number.isSafeInteger(v) || source === undefined) return v;
    return /^-?\d+$/.test(source) ? BigInt(source) : v;
  });
}
