import { isDeepStrictEqual } from 'node:util';

/**
 * The fields in which two configurations differ, deeply compared, as paths: `linux.resources.cpuShares`.
 * Arrays are compared as a whole.
 */
export function differingFields(a: object, b: object, prefix = ''): string[] {
  const left = new Map(Object.entries(a));
  const right = new Map(Object.entries(b));
  return [...new Set([...left.keys(), ...right.keys()])].flatMap((field) => {
    const [x, y] = [left.get(field), right.get(field)];
    if (isDeepStrictEqual(x, y)) return [];
    return isPlain(x) && isPlain(y) ? differingFields(x, y, `${prefix}${field}.`) : [`${prefix}${field}`];
  });
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
