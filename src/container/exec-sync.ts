import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, during, invalid, isErrno } from '../errors.ts';
import { newId } from '../id.ts';
import { readPidFile, runtimeMessage } from '../runtime/oci/runtime.ts';
import type { Services } from '../services.ts';
import { parseOci, stringifyOci } from '../spec/json.ts';
import { execProcess } from '../spec/process.ts';
import type { Spec } from '../spec/types.ts';
import { inheritedEnvironment } from '../sys/exec.ts';
import { MAX_TIMER_MS } from '../util/abort.ts';
import { containerState } from './record.ts';
import { live } from './start.ts';

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
/** How long the OCI runtime may take to reap a killed command. */
const KILL_WAIT_MS = 2000;
/** runc's own code for "the command could not be started". */
const RUNTIME_FAILED = 255;

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
  const container = live(s, id);
  if (command.length === 0) throw invalid('cmd', 'must name a command');
  if (timeoutSeconds < 0) throw invalid('timeout', 'must not be negative');
  const state = containerState(container);
  if (state !== 'running') throw new BerthError('precondition', `the container is ${state}, not running`);
  const runtime = s.runtimes.get(s.sandboxes.require(container.sandboxId).runtimeHandler);
  if (runtime === undefined)
    throw new BerthError('precondition', 'the runtime handler is not configured any more');
  const paths = s.paths.container(id);
  const name = join(paths.bundle, `exec-${newId().slice(0, 16)}`);
  const files = { process: `${name}.json`, pid: `${name}.pid`, log: `${name}.log` };
  try {
    const spec = parseOci(await readFile(paths.spec, 'utf8')) as Spec;
    await writeFile(files.process, stringifyOci(execProcess(spec.process, command, false)));
    const argv = runtime.execArgs(id, { processSpec: files.process, pidFile: files.pid, log: files.log });
    return await runExec(argv, files, timeoutSeconds, signal);
  } finally {
    await Promise.all(Object.values(files).map((file) => rm(file, { force: true })));
  }
}

async function runExec(
  [program, ...args]: [string, ...string[]],
  files: { pid: string; log: string },
  timeoutSeconds: number,
  signal: AbortSignal,
): Promise<ExecResult> {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: inheritedEnvironment(),
    detached: true,
  });
  const output = new BoundedOutput(MAX_OUTPUT);
  output.read(child.stdout, 'stdout');
  output.read(child.stderr, 'stderr');
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const closed = once(child, 'close').catch(() => {});
  const timeout = new AbortController();
  const stop = AbortSignal.any([signal, timeout.signal]);
  const timer =
    timeoutSeconds === 0
      ? undefined
      : setTimeout(() => timeout.abort(), Math.min(timeoutSeconds * 1000, MAX_TIMER_MS));
  const kill = () => void killExec(child.pid, files.pid, exited);
  stop.addEventListener('abort', kill, { once: true });
  try {
    if (stop.aborted) kill();
    const [code] = await exited;
    if (timeout.signal.aborted) {
      throw new BerthError('deadline', `the command did not end within ${timeoutSeconds} s and was killed`);
    }
    signal.throwIfAborted();
    await Promise.race([closed, delay(DRAIN_MS, undefined, { ref: false })]);
    if (code === null || code === RUNTIME_FAILED) await throwIfNeverStarted(files);
    return { ...output.result(), exitCode: code ?? 128 + 9 };
  } catch (e: unknown) {
    throw isErrno(e, 'ENOENT', 'EACCES') ? during('OCI runtime', e) : e;
  } finally {
    clearTimeout(timer);
    stop.removeEventListener('abort', kill);
    child.stdout.destroy();
    child.stderr.destroy();
  }
}

/** 255 may be the command's own code; the OCI runtime wrote a pid only if there was a command. */
async function throwIfNeverStarted(files: { pid: string; log: string }): Promise<void> {
  if ((await readPidFile(files.pid).catch(() => undefined)) !== undefined) return;
  const message = runtimeMessage(await readFile(files.log, 'utf8').catch(() => ''));
  throw new BerthError(
    'internal',
    `failed to run the command: ${message || 'the OCI runtime gave no reason'}`,
  );
}

/**
 * Kills the command with its process group (the OCI runtime gives it a session of its own). The runtime
 * is left to reap it, or a zombie would stay in the container; it is killed only when it does not end.
 */
async function killExec(
  runtimePid: number | undefined,
  pidFile: string,
  exited: Promise<unknown>,
): Promise<void> {
  const command = await readPidFile(pidFile).catch(() => undefined);
  if (command !== undefined) {
    killGroup(command);
    if (await Promise.race([exited.then(() => true), delay(KILL_WAIT_MS, false, { ref: false })])) return;
  }
  if (runtimePid !== undefined) killGroup(runtimePid);
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (e: unknown) {
    if (!isErrno(e, 'ESRCH')) throw e;
  }
}

/** Collects two streams up to a common bound; what is beyond is read and dropped, so that nobody blocks. */
class BoundedOutput {
  readonly #chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  #left: number;

  constructor(max: number) {
    this.#left = max;
  }

  read(stream: Readable, name: 'stdout' | 'stderr'): void {
    stream.on('data', (chunk: Buffer) => {
      const kept = chunk.subarray(0, this.#left);
      this.#left -= kept.length;
      if (kept.length > 0) this.#chunks[name].push(kept);
    });
    stream.on('error', () => {});
  }

  result(): { stdout: Buffer; stderr: Buffer } {
    return { stdout: Buffer.concat(this.#chunks.stdout), stderr: Buffer.concat(this.#chunks.stderr) };
  }
}
