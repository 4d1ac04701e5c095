import { constants } from 'node:fs';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, isErrno } from '../../errors.ts';
import type { ContainerPaths } from '../../paths.ts';
import { helperMark } from '../../sys/helpers.ts';
import { spawnChild } from '../../sys/spawn.ts';
import { RuntimeCreateError } from '../handler.ts';
import {
  type OciRuntime,
  RUNTIME_TIMEOUT_MS,
  readPidFile,
  runtimeMessage,
  tryReadPidFile,
} from './runtime.ts';

/** What conmon needs to know to create one container. */
export interface ConmonOptions {
  /** The conmon program. */
  conmon: string;
  runtime: OciRuntime;
  id: string;
  /** For conmon's own messages. */
  name: string;
  paths: ContainerPaths;
  exitsDir: string;
  /** Absolute. */
  logPath: string;
  tty: boolean;
  stdin: boolean;
  stdinOnce: boolean;
}

/** Both processes of a container as conmon started them. */
export interface Started {
  /** The container's init. */
  pid: number;
  conmonPid: number;
}

const STDERR_FD = 2;
const SYNC_PIPE_FD = 3;
const START_PIPE_FD = 4;
// conmon answers with one JSON line; runc's message in it is cut by conmon at 8 KiB.
const MAX_SYNC_BYTES = 64 * 1024;

/**
 * Starts a monitor that creates one container, and returns when the runtime's `create` has ended.
 *
 * The handshake: conmon waits for a byte on the start pipe (so that its parent can place it first),
 * forks itself into the background, runs the runtime, and writes one line `{"data":<pid>}` to the sync
 * pipe; a negative pid means that the runtime failed, with its stderr as the message. The pid file of conmon
 * is written before its first process ends. From then on conmon lives without the daemon.
 *
 * @throws RuntimeCreateError when the runtime refused; BerthError otherwise. Nothing of conmon is left.
 */
export async function createWithConmon(options: ConmonOptions): Promise<Started> {
  const child = spawnChild(options.conmon, conmonArgs(options), {
    stdio: ['ignore', 'ignore', 'out', 'out', 'in'],
    cwd: options.paths.bundle,
    env: {
      PATH: process.env.PATH,
      // GLib refuses without a word what is no text of the locale's encoding; names and paths are UTF-8.
      LC_CTYPE: 'C.UTF-8',
      ...helperMark(options.id),
      _OCI_SYNCPIPE: String(SYNC_PIPE_FD),
      _OCI_STARTPIPE: String(START_PIPE_FD),
    },
  });
  const { [STDERR_FD]: errors, [SYNC_PIPE_FD]: sync, [START_PIPE_FD]: start } = child.pipes;
  const timeout = AbortSignal.timeout(RUNTIME_TIMEOUT_MS);
  const kill = () => killConmon(child.pid, options.paths.conmonPidFile);
  timeout.addEventListener('abort', kill);
  try {
    // A conmon that dies before reading closes the pipe; its exit code tells more than EPIPE.
    start?.on('error', () => {});
    start?.end('\0');
    const stderr = collect(errors, MAX_SYNC_BYTES);
    const line = await collect(sync, MAX_SYNC_BYTES, '\n');
    const { code } = await child.exited;
    if (line === '') {
      const why = timeout.aborted
        ? `no answer within ${RUNTIME_TIMEOUT_MS / 1000} s`
        : `exit code ${code}: ${await stderr}`;
      throw new BerthError(timeout.aborted ? 'deadline' : 'internal', `conmon: ${why.trim()}`);
    }
    const pid = parseSync(line);
    return { pid, conmonPid: readPidFile(options.paths.conmonPidFile) };
  } catch (e: unknown) {
    await child.exited;
    throw e;
  } finally {
    timeout.removeEventListener('abort', kill);
    for (const pipe of [errors, sync, start]) pipe?.destroy();
  }
}

/** conmon's command line (conmon(8)). */
export function conmonArgs(o: ConmonOptions): string[] {
  const { paths } = o;
  return [
    ...['--api-version', '1', '--cid', o.id, '--cuuid', o.id, '--name', o.name],
    ...['--bundle', paths.bundle, '--full-attach', '--exit-dir', o.exitsDir, '--persist-dir', paths.bundle],
    ...['--container-pidfile', paths.pidFile, '--conmon-pidfile', paths.conmonPidFile],
    ...['--log-path', `k8s-file:${o.logPath}`, '--log-level', 'error', '--runtime', o.runtime.path],
    ...o.runtime.globalArgs(paths.runtimeLog).map((arg) => `--runtime-arg=${arg}`),
    ...(o.tty ? ['--terminal'] : []),
    ...(o.stdin ? ['--stdin'] : []),
    ...(o.stdin && !o.stdinOnce ? ['--leave-stdin-open'] : []),
  ];
}

/**
 * The pid of one JSON line `{"data":<pid>,"message":…}`.
 *
 * @throws RuntimeCreateError with the message for a negative pid; BerthError `internal` for no such line
 */
export function parseSync(line: string): number {
  const { data: pid, message } = parseObject(line);
  if (typeof pid !== 'number' || !Number.isSafeInteger(pid)) throw noAnswer(line);
  if (pid > 1) return pid;
  const reason = typeof message === 'string' ? runtimeMessage(message) : '';
  throw new RuntimeCreateError(reason || 'the OCI runtime failed without a message');
}

function parseObject(line: string): { data?: unknown; message?: unknown } {
  try {
    return Object(JSON.parse(line));
  } catch (e: unknown) {
    throw noAnswer(line, e);
  }
}

function noAnswer(line: string, cause?: unknown): BerthError {
  return new BerthError('internal', `conmon answered ${JSON.stringify(line.slice(0, 200))}`, { cause });
}

/** What a stream says until it ends or, with `until`, up to that character; cut at `max` bytes. */
async function collect(stream: Readable | undefined, max: number, until?: string): Promise<string> {
  if (stream === undefined) return '';
  let text = '';
  try {
    for await (const chunk of stream) {
      text += String(chunk);
      if (text.length >= max || (until !== undefined && text.includes(until))) break;
    }
  } catch (e: unknown) {
    // The sync pipe is a socket pair: conmon's death resets it.
    if (!isErrno(e, 'ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE')) throw e;
  }
  return text;
}

/** Ends a monitor that does not answer; its runtime dies with it (conmon sets PDEATHSIG). */
function killConmon(firstPid: number | undefined, pidFile: string): void {
  const forked = tryReadPidFile(pidFile);
  for (const pid of [firstPid, forked]) {
    try {
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
    } catch (e: unknown) {
      if (!isErrno(e, 'ESRCH')) throw e;
    }
  }
}

const REOPEN_TIMEOUT_MS = 10_000;

/**
 * Makes conmon close the log and open a new file under the same name, and returns when the new file is
 * there: the kubelet stats it right after the call.
 *
 * conmon writes `<log>.tmp` and renames it over the old name, so a new inode is the sign.
 */
export async function reopenLog(paths: ContainerPaths, logPath: string): Promise<void> {
  // Over a file that nobody has moved conmon's rename would put an empty one.
  if (await monitorHasOpen(paths.conmonPidFile, logPath)) return;
  const before = await inodeOf(logPath);
  await writeControl(paths.control, '2 0 0\n');
  const giveUp = performance.now() + REOPEN_TIMEOUT_MS;
  while ((await inodeOf(logPath)) === before) {
    if (performance.now() > giveUp) throw new BerthError('deadline', 'conmon did not reopen the log');
    await delay(2);
  }
}

/** False also when there is no monitor or no file: then there is something to be done or to be refused. */
async function monitorHasOpen(pidFile: string, path: string): Promise<boolean> {
  try {
    const fds = `/proc/${readPidFile(pidFile)}/fd`;
    const { dev, ino } = await stat(path, { bigint: true });
    const stats = (await readdir(fds)).map((fd) =>
      stat(`${fds}/${fd}`, { bigint: true }).catch(() => undefined),
    );
    return (await Promise.all(stats)).some((file) => file?.ino === ino && file.dev === dev);
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ESRCH')) return false;
    throw e;
  }
}

/** Sets the size of the container's terminal, in characters. @throws BerthError `precondition` */
export async function resizeTerminal(
  paths: ContainerPaths,
  { width, height }: { width: number; height: number },
): Promise<void> {
  await writeControl(paths.control, `1 ${height} ${width}\n`);
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  try {
    return (await stat(path, { bigint: true })).ino;
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT')) return undefined;
    throw e;
  }
}

/** One line to conmon's control FIFO. @throws BerthError `precondition` when no conmon reads it any more. */
async function writeControl(fifo: string, line: string): Promise<void> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    // Without O_NONBLOCK the open would wait for a reader for ever.
    file = await open(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch (e: unknown) {
    if (!isErrno(e, 'ENXIO', 'ENOENT')) throw e;
    throw new BerthError('precondition', 'the container has no running monitor', { cause: e });
  }
  try {
    await file.write(line);
  } finally {
    await file.close();
  }
}

/**
 * The exit code that conmon left, with the time at which it did (nanoseconds since the epoch), or
 * undefined when there is none: conmon itself was killed, or the machine went down.
 */
export async function readExit(exitFile: string): Promise<{ code: number; finishedAt: bigint } | undefined> {
  try {
    const [text, { mtimeNs }] = await Promise.all([
      readFile(exitFile, 'utf8'),
      stat(exitFile, { bigint: true }),
    ]);
    const code = Number(text.trim());
    return text.trim() !== '' && Number.isInteger(code) ? { code, finishedAt: mtimeNs } : undefined;
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT')) return undefined;
    throw e;
  }
}
