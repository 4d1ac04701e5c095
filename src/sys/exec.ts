import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { BerthError, isErrno } from '../errors.ts';
import { type Child, type ChildStdio, type ExitStatus, spawnChild } from './spawn.ts';

/** A longer delay makes setTimeout fire after 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** How long a killed process may take to go; one in uninterruptible sleep does not. */
const KILL_WAIT_MS = 10_000;
/** How long after the exit output is still waited for when a grandchild keeps the pipes open. */
const DRAIN_MS = 200;

/** Where a standard stream leads: collected through a pipe, /dev/null, or a descriptor of this process. */
export type Stdio = 'pipe' | 'ignore' | number;

export interface RunOptions {
  /** Written to stdin, which is then closed; without it stdin is /dev/null. */
  input?: string | Buffer;
  /** Default: this process's, without what the service manager meant for this process only. */
  env?: Record<string, string | undefined>;
  cwd?: string;
  signal?: AbortSignal;
  /** Milliseconds until the process and its group are killed. */
  timeoutMs: number;
  /** Bytes of stdout at which the process is killed; of stderr the last so many are kept. */
  maxOutput: number;
  /** A descriptor of this process for stdin, instead of `input`. */
  stdin?: number;
  /** Default `pipe`. A process that leaves children behind (`runc create`) must not be given a pipe. */
  stdout?: Stdio;
  stderr?: Stdio;
  /** Descriptors of this process to hand on as 3, 4, … */
  extraFds?: number[];
}

export interface RunResult {
  /** The exit code, null when a signal ended the process. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: Buffer;
}

/**
 * Runs a program to its end and answers how it ended, whatever the code. It leads a process group of its
 * own; on abort, deadline or too much output the whole group gets SIGKILL and is waited for.
 *
 * @throws SyscallError when it cannot be started (ENOENT, EACCES, ETXTBSY); the signal's reason;
 *   BerthError `deadline`; BerthError `exhausted` past `maxOutput`
 */
export async function run(argv: readonly [string, ...string[]], options: RunOptions): Promise<RunResult> {
  const [program, ...args] = argv;
  const { signal } = options;
  signal?.throwIfAborted();
  const child = spawnChild(program, args, {
    cwd: options.cwd,
    env: options.env ?? inheritedEnvironment(),
    stdio: [
      options.input === undefined ? (options.stdin ?? 'ignore') : 'in',
      outputStdio(options.stdout),
      outputStdio(options.stderr),
      ...(options.extraFds ?? []),
    ],
  });
  const [stdinPipe, stdoutPipe, stderrPipe] = child.pipes;
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  const abort = (): void => fail(signal?.reason);
  const deadline = setTimeout(
    () => fail(new BerthError('deadline', `${program}: did not end within ${options.timeoutMs} ms`)),
    Math.min(options.timeoutMs, MAX_TIMER_MS),
  );
  signal?.addEventListener('abort', abort, { once: true });
  const stdout = collect(stdoutPipe, options.maxOutput, () =>
    fail(new BerthError('exhausted', `${program}: more than ${options.maxOutput} bytes of output`)),
  );
  const stderr = collectTail(stderrPipe, options.maxOutput);
  const ended = waitForEnd(child);
  // A program need not read its input: EPIPE is its choice, and its exit code tells.
  stdinPipe?.on('error', () => {});
  if (options.input !== undefined) stdinPipe?.end(options.input);
  try {
    const status = await Promise.race([ended, failed]);
    return { ...status, stdout: stdout(), stderr: stderr() };
  } catch (e: unknown) {
    await killGroup(child, ended);
    throw e;
  } finally {
    clearTimeout(deadline);
    signal?.removeEventListener('abort', abort);
  }
}

/**
 * `run`, but an exit code other than 0 is an error: BerthError `internal` naming the program, how it
 * ended and the last line it wrote to stderr.
 */
export async function runOk(argv: readonly [string, ...string[]], options: RunOptions): Promise<RunResult> {
  const result = await run(argv, options);
  if (result.code === 0) return result;
  throw new BerthError('internal', exitMessage(argv[0], result));
}

/** `runc: exit code 1: container does not exist`. */
export function exitMessage(program: string, result: RunResult): string {
  const how = result.signal === null ? `exit code ${result.code}` : `killed by ${result.signal}`;
  const lastLine = result.stderr.toString().trimEnd().split('\n').at(-1);
  return lastLine ? `${program}: ${how}: ${lastLine}` : `${program}: ${how}`;
}

/**
 * The environment for children: without the variables by which systemd and `bin/berthd` talk to this very
 * process. runc, for one, would take NOTIFY_SOCKET for the container's and report readiness in the daemon's
 * name.
 */
export function inheritedEnvironment(): Record<string, string | undefined> {
  const {
    NOTIFY_SOCKET,
    WATCHDOG_USEC,
    WATCHDOG_PID,
    LISTEN_FDS,
    LISTEN_PID,
    LISTEN_FDNAMES,
    UV_THREADPOOL_SIZE,
    MALLOC_ARENA_MAX,
    MALLOC_MMAP_THRESHOLD_,
    NODE_COMPILE_CACHE,
    NODE_COMPILE_CACHE_PORTABLE,
    ...env
  } = process.env;
  return env;
}

function outputStdio(stdio: Stdio = 'pipe'): ChildStdio {
  return stdio === 'pipe' ? 'out' : stdio;
}

/** Settles when the process has ended and its output is read, or a grandchild keeps that open too long. */
async function waitForEnd({ exited, pipes: [stdin, ...outputs] }: Child): Promise<ExitStatus> {
  const read = Promise.all(
    outputs.map((pipe) => pipe && finished(pipe, { writable: false }).catch(() => {})),
  );
  const status = await exited;
  const { promise: drained, resolve } = Promise.withResolvers<void>();
  // One more turn of the loop: after a long one, timers run before what is readable.
  const timer = setTimeout(() => setImmediate(resolve), DRAIN_MS);
  await Promise.race([read, drained]);
  clearTimeout(timer);
  for (const pipe of [stdin, ...outputs]) pipe?.destroy();
  return status;
}

async function killGroup(child: Child, ended: Promise<ExitStatus>): Promise<void> {
  // The group's number is ours while its leader is not reaped.
  if (!child.reaped) {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch (e: unknown) {
      if (!isErrno(e, 'ESRCH')) throw e;
    }
  }
  const { promise: patience, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, KILL_WAIT_MS);
  await Promise.race([ended, patience]);
  clearTimeout(timer);
}

function collect(stream: Readable | undefined, limit: number, exceeded: () => void): () => Buffer {
  const chunks: Buffer[] = [];
  let size = 0;
  stream?.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= limit) chunks.push(chunk);
    else exceeded();
  });
  return () => Buffer.concat(chunks);
}

function collectTail(stream: Readable | undefined, limit: number): () => Buffer {
  let tail: Buffer[] = [];
  let size = 0;
  const joined = (): Buffer => {
    const all = Buffer.concat(tail);
    return all.subarray(Math.max(0, all.length - limit));
  };
  stream?.on('data', (chunk: Buffer) => {
    tail.push(chunk);
    size += chunk.length;
    // Joined only when twice too long, so that the cost per byte stays constant.
    if (size <= 2 * limit) return;
    tail = [Buffer.from(joined())];
    size = limit;
  });
  return joined;
}
