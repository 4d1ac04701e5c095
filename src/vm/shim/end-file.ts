import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessEnd } from '../../shim/task.ts';

/** The end of a container whose machine has ended, or was killed with the shim: SIGKILL. */
export const KILLED_CODE = 137;

/**
 * Notes in a container's bundle how it ended, so that its end can still be told when the shim is killed before
 * anybody has asked. At once: nobody must hear of an end that is forgotten a moment later.
 */
export function writeEnd(bundle: string, { code, at }: ProcessEnd): void {
  writeFileSync(pathIn(bundle), JSON.stringify({ code, at: String(at ?? 0n) }), { mode: 0o600 });
}

/** What was noted there; undefined when nothing was, or not wholly. */
export function readEnd(bundle: string): ProcessEnd | undefined {
  try {
    const { code, at } = Object(JSON.parse(readFileSync(pathIn(bundle), 'utf8')));
    if (!Number.isInteger(code) || !/^\d{1,20}$/.test(at)) return undefined;
    return { code, at: BigInt(at) };
  } catch {
    return undefined;
  }
}

function pathIn(bundle: string): string {
  return join(bundle, 'end.json');
}
