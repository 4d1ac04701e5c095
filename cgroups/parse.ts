import type { Psi, PsiLine } from './types.ts';

const UINT = /^\d{1,20}$/;
const INT = /^-?\d{1,20}$/;

/** An unsigned decimal number with nothing around it but white space; undefined for anything else. */
export function parseUint(text: string | undefined): bigint | undefined {
  const s = text?.trim();
  return s !== undefined && UINT.test(s) ? BigInt(s) : undefined;
}

/** Like {@link parseUint}, with an optional minus (v1 quota is -1 when unlimited). */
export function parseInt64(text: string | undefined): bigint | undefined {
  const s = text?.trim();
  return s !== undefined && INT.test(s) ? BigInt(s) : undefined;
}

/** A v2 limit: a number, or -1n for `max`. */
export function parseMax(text: string | undefined): bigint | undefined {
  return text?.trim() === 'max' ? -1n : parseUint(text);
}

/** A limit read from the kernel turned into "undefined when unlimited". */
export function limited(limit: bigint | undefined): bigint | undefined {
  return limit === undefined || limit < 0n ? undefined : limit;
}

/** Flat keyed files (`key value` a line: cpu.stat, memory.stat). Lines of another shape are skipped. */
export function parseFlatKeyed(text: string | undefined): Map<string, bigint> {
  const out = new Map<string, bigint>();
  for (const line of (text ?? '').split('\n')) {
    const space = line.indexOf(' ');
    if (space <= 0) continue;
    const value = parseUint(line.slice(space + 1));
    if (value !== undefined) out.set(line.slice(0, space), value);
  }
  return out;
}

/**
 * Single values of a flat keyed file, each looked for when it is asked for: memory.stat has forty lines, and
 * five of them, for every container of the node, are wanted every few seconds.
 */
export function flatReader(text = ''): (key: string) => bigint | undefined {
  return (key) => {
    const start = text.startsWith(`${key} `) ? 0 : text.indexOf(`\n${key} `) + 1;
    if (start === 0 && !text.startsWith(`${key} `)) return undefined;
    const end = text.indexOf('\n', start);
    return parseUint(text.slice(start + key.length + 1, end === -1 ? undefined : end));
  };
}

/** Nested keyed files (`key sub=value sub=value` a line: io.stat). Pairs of another shape are skipped. */
export function parseNestedKeyed(text: string | undefined): Map<string, Map<string, string>> {
  const out = new Map<string, Map<string, string>>();
  for (const line of (text ?? '').split('\n')) {
    const [key, ...pairs] = line.trim().split(/\s+/);
    if (key === undefined || key === '') continue;
    const inner = new Map<string, string>();
    for (const pair of pairs) {
      const eq = pair.indexOf('=');
      if (eq > 0) inner.set(pair.slice(0, eq), pair.slice(eq + 1));
    }
    out.set(key, inner);
  }
  return out;
}

/** `major:minor` of a block device. */
export function parseDevice(text: string): { major: number; minor: number } | undefined {
  const match = /^(\d{1,7}):(\d{1,7})$/.exec(text);
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2]) };
}

const PSI_LINE =
  /^(some|full) avg10=(\d{1,3}(?:\.\d{1,4})?) avg60=(\d{1,3}(?:\.\d{1,4})?) avg300=(\d{1,3}(?:\.\d{1,4})?) total=(\d{1,20})$/gm;

/** A pressure file; undefined when it lacks the `some` line. */
export function parsePsi(text = ''): Psi | undefined {
  let some: PsiLine | undefined;
  let full: PsiLine | undefined;
  for (const [, kind, avg10, avg60, avg300, total] of text.matchAll(PSI_LINE)) {
    const line = {
      avg10: Number(avg10),
      avg60: Number(avg60),
      avg300: Number(avg300),
      // The kernel counts microseconds (Documentation/accounting/psi.rst), CRI wants nanoseconds.
      totalNs: BigInt(total ?? 0) * 1000n,
    };
    if (kind === 'some') some = line;
    else full = line;
  }
  return some && { some, full };
}

/** Process or thread ids, one a line. 0 (a process of a PID namespace that we cannot see) is left out. */
export function parsePids(text: string | undefined): number[] {
  const out: number[] = [];
  for (const line of (text ?? '').split('\n')) {
    // Ids are at most 2^22 (PID_MAX_LIMIT). A 0 must never reach kill(2): it means our own group.
    if (/^[1-9]\d{0,6}$/.test(line)) out.push(Number(line));
  }
  return out;
}
