import { invalid } from '../errors.ts';

/** Labels and annotations of one object together, in bytes; Kubernetes allows a pod 256 KiB of annotations. */
const MAX_MAP_BYTES = 1024 * 1024;

/** Kubernetes' limit for names of objects (DNS subdomains). */
const MAX_NAME_LENGTH = 253;

/** A part of paths and of names that are joined with separators: no slash, no control characters. */
export function checkName(name: string, field: string): void {
  if (name === '') throw invalid(field, 'must not be empty');
  checkOptionalName(name, field);
}

/** As {@link checkName}, but may be empty. */
export function checkOptionalName(name: string, field: string): void {
  if (name.length > MAX_NAME_LENGTH) throw invalid(field, `must have at most ${MAX_NAME_LENGTH} characters`);
  if (hasControl(name) || name.includes('/'))
    throw invalid(field, 'must not contain "/" or control characters');
  if (name === '.' || name === '..') throw invalid(field, `must not be "${name}"`);
}

/** Refuses negative numbers, except those in `allowed` (`-1n` for "unlimited"). */
export function checkNotNegative(value: bigint | undefined, field: string, ...allowed: bigint[]): void {
  if (value === undefined || value >= 0n || allowed.includes(value)) return;
  const or = allowed.length > 0 ? `, or ${allowed.join(', ')}` : '';
  throw invalid(field, `must not be negative${or}; is ${value}`);
}

/** Refuses what is no uint32, such as a negative attempt. */
export function checkAttempt(value: number, field: string): void {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw invalid(field, 'must be 0 to 4294967295');
  }
}

/** Bounds the size of labels or annotations, which are kept, listed and sent back with every answer. */
export function checkMap(map: Readonly<Record<string, string>>, field: string): void {
  let bytes = 0;
  for (const [key, value] of Object.entries(map)) {
    if (key === '') throw invalid(field, 'a key must not be empty');
    bytes += Buffer.byteLength(key) + Buffer.byteLength(value);
  }
  if (bytes > MAX_MAP_BYTES)
    throw invalid(field, `keys and values together have ${bytes} bytes; at most 1 MiB`);
}

/** A list's length, for lists that each cost work or memory. */
export function checkCount(count: number, most: number, field: string): void {
  if (count > most) throw invalid(field, `has ${count} entries; at most ${most}`);
}

/** An absolute path without `..`. */
export function checkAbsolute(path: string, field: string): void {
  if (!path.startsWith('/')) throw invalid(field, 'must be an absolute path');
  checkInside(path, field);
}

/** A path that cannot lead out of the directory below which it is meant. */
export function checkInside(path: string, field: string): void {
  if (hasControl(path)) throw invalid(field, 'must not contain control characters');
  if (Buffer.byteLength(path) > 4095) throw invalid(field, 'is longer than the kernel allows (4095 bytes)');
  if (path.split('/').includes('..')) throw invalid(field, 'must not contain ".."');
}

/** True for NUL, newline and the like, which would forge lines of logs and of files such as resolv.conf. */
export function hasControl(text: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return /[\x00-\x1f\x7f]/.test(text);
}
