import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { BerthError, isErrno } from '../errors.ts';

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
 * @throws Node's system error when it cannot be started (ENOENT, EACCES, ETXTBSY); the signal's reason;
 *   BerthError `deadline`; BerthError `exhausted` past `maxOutput`
 */
export async function run(argv: readonly [string, ...string[]], options: RunOptions): Promise<RunResult> {
  const [program, ...args] = argv;
  const { signal } = options;
  signal?.throwIfAborted();
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: options.env ?? inheritedEnvironment(),
    detached: true,
    stdio: [
      options.input === undefined ? (options.stdin ?? 'ignore') : 'pipe',
      options.stdout ?? 'pipe',
      options.stderr ?? 'pipe',
      ...(options.extraFds ?? []),
    ],
  });
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  const abort = (): void => fail(signal?.reason);
  const deadline = setTimeout(
    () => fail(new BerthError('deadline', `${program}: did not end within ${options.timeoutMs} ms`)),
    Math.min(options.timeoutMs, MAX_TIMER_MS),
  );
  signal?.addEventListener('abort', abort, { once: true });
  const stdout = collect(child.stdout, options.maxOutput, () =>
    fail(new BerthError('exhausted', `${program}: more than ${options.maxOutput} bytes of output`)),
  );
  const stderr = collectTail(child.stderr, options.maxOutput);
  const ended = waitForEnd(child);
  // A program need not read its input: EPIPE is its choice, and its exit code tells.
  child.stdin?.on('error', () => {});
  child.stdin?.end(options.input);
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
 * The environment for children: without the variables by which systemd talks to this very process.
 * runc, for one, would take NOTIFY_SOCKET for the container's and report readiness in the daemon's name.
 */
export function inheritedEnvironment(): Record<string, string | undefined> {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, ...env } =
    process.env;
  return env;
}

type ExitStatus = Pick<RunResult, 'code' | 'signal'>;

/** Settles when the process has ended and its output is read, or a grandchild keeps that open too long. */
function waitForEnd(child: ChildProcess): Promise<ExitStatus> {
  const { promise, resolve, reject } = Promise.withResolvers<ExitStatus>();
  child.once('error', reject);
  child.once('close', (code, signal) => resolve({ code, signal }));
  child.once('exit', (code, signal) => {
    const drained = setTimeout(() => {
      // One more turn of the loop: after a long one, timers run before what is readable.
      setImmediate(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
        child.stdin?.destroy();
        resolve({ code, signal });
      });
    }, DRAIN_MS);
    child.once('close', () => clearTimeout(drained));
  });
  return promise;
}

async function killGroup(child: ChildProcess, ended: Promise<ExitStatus>): Promise<void> {
  // Without a pid it never started. The group's number is ours while its leader is not reaped.
  if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch (e: unknown) {
      if (!isErrno(e, 'ESRCH')) throw e;
    }
  }
  const { promise: patience, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, KILL_WAIT_MS);
  await Promise.race([ended.catch(() => {}), patience]);
  clearTimeout(timer);
}

function collect(stream: Readable | null, limit: number, exceeded: () => void): () => Buffer {
  const chunks: Buffer[] = [];
  let size = 0;
  stream?.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= limit) chunks.push(chunk);
    else exceeded();
  });
  return () => Buffer.concat(chunks);
}

function collectTail(stream: Readable | null, limit: number): () => Buffer {
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
