import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { expect } from 'vitest';

/** berth's source, which Node runs as it is. */
export const MAIN = path.resolve(import.meta.dirname, '../../src/cli/main.ts');
/** The launcher of the built program. */
export const BERTH = path.resolve(import.meta.dirname, '../../bin/berth');

/** How a command ended and what it wrote. */
export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A command under way, and a promise of its result. */
export interface Running extends Promise<Result> {
  process: ChildProcess;
  /** Waits until what it wrote to stdout holds this. */
  shows(text: string): Promise<void>;
}

/** Starts berth, or another command, as its own process with `input` on its standard input. */
export function start(
  endpoint: string,
  args: string[],
  input: string | Buffer = '',
  command = [process.execPath, MAIN],
): Running {
  const [program = '', ...rest] = [...command, ...args];
  const child = spawn(program, rest, { env: { ...process.env, BERTH_ENDPOINT: endpoint }, stdio: 'pipe' });
  child.stdin.on('error', () => undefined).end(input);
  const out = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => (out[name] += text));
  }
  const result = once(child, 'close').then(([code]): Result => ({ code: code as number | null, ...out }));
  return Object.assign(result, {
    process: child,
    shows: async (text: string) => {
      while (!out.stdout.includes(text) && child.exitCode === null) await once(child.stdout, 'data');
      expect(out.stdout).toContain(text);
    },
  });
}
