import { type ReadFile, readOptional, write } from './io.ts';
import { limited, parseMax, parseUint } from './parse.ts';
import type { PidsStats, Resources } from './types.ts';

export function current(dir: string, read: ReadFile = readOptional): bigint | undefined {
  return parseUint(read(dir, 'pids.current'));
}

export function stats(dir: string, read: ReadFile = readOptional, readLimit = read): PidsStats {
  return {
    current: current(dir, read),
    limit: limited(parseMax(readLimit(dir, 'pids.max'))),
  };
}

export function readResources(dir: string): Resources {
  return { pidsLimit: parseMax(readOptional(dir, 'pids.max')) };
}

export async function update(dir: string, r: Resources): Promise<void> {
  if (r.pidsLimit === undefined) return;
  await write(dir, 'pids.max', r.pidsLimit < 0n ? 'max' : `${r.pidsLimit}`);
}
