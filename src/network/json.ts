/** A JSON object whose members are not known yet. */
export type JsonObject = { [key: string]: unknown };

/** True for a JSON object, not for an array or null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Text of a foreign program, for an error message: one line of printable characters, at most `limit` long. */
export function excerpt(text: string, limit = 512): string {
  const line = text
    .slice(0, limit * 2)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not reach a log
    .replace(/[\u0000-\u001f\u007f-\u009f\s]+/g, ' ')
    .trim();
  return line.length > limit ? `${line.slice(0, limit)}…` : line;
}
