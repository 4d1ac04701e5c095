import { closeSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { BerthError, during, invalid, isErrno } from '../errors.ts';
import { newId } from '../id.ts';
import { readPidFile } from '../runtime/oci/runtime.ts';
import type { Services } from '../services.ts';
import { parseOci, stringifyOci } from '../spec/json.ts';
import { execProcess } from '../spec/process.ts';
import type { Spec } from '../spec/types.ts';
import { type ChildPipe, childPipe } from '../sys/pipe.ts';
import { PolledStream } from '../sys/polled-stream.ts';
import { setWindowSize } from '../sys/pty.ts';
import { ConsoleSocket } from '../sys/unix-socket.ts';
import { containerState } from './record.ts';
import { live } from './start.ts';

/** The code of a command whose end nobody saw, as for a container. */
const UNKNOWN_EXIT_CODE = 255;

/** What to run, and which of its streams are wanted; the others are /dev/null. */
export interface ExecOptions {
  command: string[];
  tty: boolean;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** The size that a new terminal gets before the command runs, if one is known by then. */
  initialSize?: () => TerminalSize | undefined;
}

/** A terminal's size in characters. */
export interface TerminalSize {
  width: number;
  height: number;
}

/** A command that runs in a container. */
export interface ExecProcess {
  /** As the host numbers it; it leads a session and a process group of its own. */
  pid: number;
  /** Resolves with its code, or 128 + signal; never rejects. */
  exited: Promise<number>;
  /** With a terminal, writing is typing. */
  stdin?: Writable;
  /** With a terminal, all output. */
  stdout?: Readable;
  stderr?: Readable;
  /** Without a terminal, does nothing. */
  resize(size: TerminalSize): void;
  /**
   * Lets go of the streams: the command sees the end of its input and, on writing, a broken pipe; a terminal
   * hangs up, which sends SIGHUP. Repeatable.
   */
  release(): void;
}

/** @throws BerthError `invalid` for no command; `notFound`; `precondition` when the container is not running */
export function checkExec(s: Services, id: string, command: string[]): void {
  const container = live(s, id);
  if (command.length === 0) throw invalid('cmd', 'must name a command');
  if (command.some((arg) => arg.includes('\0'))) throw invalid('cmd', 'must not contain NUL bytes');
  const state = containerState(container);
  if (state !== 'running') throw new BerthError('precondition', `the container is ${state}, not running`);
}

/**
 * Starts a command in a container, with the container's user, environment, capabilities, seccomp filter and
 * cgroup. It is this process's child, and the pipes or the pty are its only ties: when berthd ends, its
 * input ends, its terminal hangs up, and the machine's init reaps it.
 *
 * @param signal ends the start; not what has been started
 * @throws as {@link checkExec}; BerthError `internal` with the OCI runtime's message when it cannot be started
 */
export async function startExec(
  s: Services,
  id: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<ExecProcess> {
  checkExec(s, id, options.command);
  const { runtimeHandler } = s.sandboxes.require(live(s, id).sandboxId);
  const runtime = s.runtimes.get(runtimeHandler);
  if (runtime === undefined)
    throw new BerthError('precondition', 'the runtime handler is not configured any more');
  const files = s.paths.exec(newId().slice(0, 16));
  const spec = parseOci(await readFile(s.paths.container(id).spec, 'utf8')) as Spec;
  await mkdir(files.dir, { recursive: true, mode: 0o700 });
  try {
    await writeFile(files.process, stringifyOci(execProcess(spec.process, options.command, options.tty)));
    const start = (more: Pick<Parameters<typeof runtime.exec>[1], 'stdio' | 'consoleSocket'>) =>
      runtime.exec(id, { files, signal, ...more });
    return options.tty
      ? await withTerminal(s, files.console, options, start)
      : await withPipes(s, options, (stdio) => start({ stdio }));
  } catch (e: unknown) {
    await endUnwanted(s, files.pid);
    throw isErrno(e, 'ENOENT', 'EACCES') ? during('OCI runtime', e) : e;
  } finally {
    await rm(files.dir, { recursive: true, force: true });
  }
}

type Stdio = { stdin?: number; stdout?: number; stderr?: number };

async function withPipes(
  s: Services,
  wanted: ExecOptions,
  start: (stdio: Stdio) => Promise<number>,
): Promise<ExecProcess> {
  const pipes: Partial<Record<keyof Stdio, ChildPipe>> = {};
  const each = (use: (pipe: ChildPipe) => void) => Object.values(pipes).forEach(use);
  const release = () => each(({ stream }) => stream.destroy());
  try {
    for (const name of ['stdin', 'stdout', 'stderr'] as const) {
      if (wanted[name]) pipes[name] = childPipe(name === 'stdin' ? 'in' : 'out');
    }
    const stdio = Object.fromEntries(Object.entries(pipes).map(([name, pipe]) => [name, pipe.childFd]));
    // A broken pipe is how a command says that it reads no more.
    each(({ stream }) => stream.on('error', () => {}));
    const starting = start(stdio);
    // The runtime has them by now; ours would keep the pipes open for ever.
    each(({ childFd }) => closeSync(childFd));
    const pid = await starting;
    const streams = Object.fromEntries(Object.entries(pipes).map(([name, { stream }]) => [name, stream]));
    return { pid, exited: exitOf(s, pid), ...streams, resize: () => {}, release };
  } catch (e: unknown) {
    release();
    throw e;
  }
}

async function withTerminal(
  s: Services,
  path: string,
  { initialSize }: ExecOptions,
  start: (more: { stdio: Stdio; consoleSocket: string }) => Promise<number>,
): Promise<ExecProcess> {
  const socket = new ConsoleSocket(s.poller, path);
  const abort = new AbortController();
  try {
    const received = socket.receive(abort.signal).then((fd) => {
      const size = initialSize?.();
      if (size !== undefined) setWindowSize(fd, size);
      return fd;
    });
    received.catch(() => {});
    let pid: number;
    try {
      pid = await start({ stdio: {}, consoleSocket: path });
    } catch (e: unknown) {
      abort.abort(e);
      // It may have come before the command failed.
      await received.then(closeSync, () => {});
      throw e;
    }
    const terminal = new PolledStream(s.poller, await received);
    terminal.on('error', () => {});
    return {
      pid,
      exited: exitOf(s, pid),
      stdin: terminal,
      stdout: terminal,
      resize: (size) => {
        if (terminal.fd >= 0) setWindowSize(terminal.fd, size);
      },
      release: () => terminal.destroy(),
    };
  } finally {
    socket.close();
  }
}

function exitOf(s: Services, pid: number): Promise<number> {
  return s.poller.orphanExit(pid).then(
    (code) => code ?? UNKNOWN_EXIT_CODE,
    () => UNKNOWN_EXIT_CODE,
  );
}

/** A runtime that was stopped half-way may have started the command already. */
async function endUnwanted(s: Services, pidFile: string): Promise<void> {
  const pid = await readPidFile(pidFile).catch(() => undefined);
  if (pid === undefined) return;
  killGroup(pid);
  void exitOf(s, pid);
}

/** SIGKILL to a command with its process group. */
export function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (e: unknown) {
    if (!isErrno(e, 'ESRCH')) throw e;
  }
}
