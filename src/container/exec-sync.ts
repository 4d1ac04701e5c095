import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, invalid } from '../errors.ts';
import type { ExecProcess } from '../runtime/handler.ts';
import type { Services } from '../services.ts';
import { MAX_TIMER_MS } from '../util/abort.ts';
import { checkExec, startExec } from './exec-process.ts';

/** What a command in a container said and how it ended. */
export interface ExecResult {
  stdout: Buffer;
  stderr: Buffer;
  /** The code, or 128 + signal. */
  exitCode: number;
}

/** Of both streams together, bytes: the answer must fit into one 16 MiB message. */
const MAX_OUTPUT = 15 * 1024 * 1024;
/** How long output is still read after the command's end when a child in the background holds it open. */
const DRAIN_MS = 1000;

/**
 * ExecSync: runs a command in the container, with the container's user, environment and capabilities.
 *
 * @param timeoutSeconds 0 means none
 * @throws BerthError `notFound`; `precondition` when it is not running; `deadline`, after the command and
 *   its process group have been killed; a code other than 0 is no error
 */
export async function execSync(
  s: Services,
  id: string,
  command: string[],
  timeoutSeconds: number,
  signal: AbortSignal,
): Promise<ExecResult> {
  if (timeoutSeconds < 0) throw invalid('timeout', 'must not be negative');
  checkExec(s, id, command);
  const timeout = new AbortController();
  const late = new BerthError(
    'deadline',
    `the command did not end within ${timeoutSeconds} s and was killed`,
  );
  const timer =
    timeoutSeconds === 0
      ? undefined
      : setTimeout(() => timeout.abort(late), Math.min(timeoutSeconds * 1000, MAX_TIMER_MS));
  const stop = AbortSignal.any([signal, timeout.signal]);
  try {
    const options = { command, tty: false, stdin: false, stdout: true, stderr: true };
    const process = await startExec(s, id, options, stop);
    return await collect(process, stop);
  } finally {
    clearTimeout(timer);
  }
}

async function collect(process: ExecProcess, stop: AbortSignal): Promise<ExecResult> {
  const output = new BoundedOutput(MAX_OUTPUT);
  const closed = [
    process.stdout && output.read(process.stdout, 'stdout'),
    process.stderr && output.read(process.stderr, 'stderr'),
  ];
  const kill = () => process.kill();
  stop.addEventListener('abort', kill, { once: true });
  try {
    if (stop.aborted) kill();
    const exitCode = await process.exited;
    // From here on the number may come to mean another group.
    stop.removeEventListener('abort', kill);
    stop.throwIfAborted();
    const drained = new AbortController();
    await Promise.race([
      Promise.all(closed),
      delay(DRAIN_MS, undefined, { signal: drained.signal, ref: false }).catch(() => {}),
    ]);
    drained.abort();
    return { ...output.result(), exitCode };
  } finally {
    process.release();
  }
}

/** Collects two streams up to a common bound; what is beyond is read and dropped, so that nobody blocks. */
class BoundedOutput {
  readonly #chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  #left: number;

  constructor(max: number) {
    this.#left = max;
  }

  /** Resolves when the stream has ended. */
  read(stream: Readable, name: 'stdout' | 'stderr'): Promise<void> {
    stream.on('data', (chunk: Buffer) => {
      const kept = chunk.subarray(0, this.#left);
      this.#left -= kept.length;
      if (kept.length > 0) this.#chunks[name].push(kept);
    });
    return finished(stream, { writable: false }).catch(() => {});
  }

  result(): { stdout: Buffer; stderr: Buffer } {
    return { stdout: Buffer.concat(this.#chunks.stdout), stderr: Buffer.concat(this.#chunks.stderr) };
  }
}
