import { closeSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { during, isErrno } from '../../errors.ts';
import { newId } from '../../id.ts';
import type { Paths } from '../../paths.ts';
import { stringifyOci } from '../../spec/json.ts';
import type { Process } from '../../spec/types.ts';
import { type ChildPipe, childPipe } from '../../sys/pipe.ts';
import { PolledStream } from '../../sys/polled-stream.ts';
import type { Poller } from '../../sys/poller.ts';
import { setWindowSize } from '../../sys/pty.ts';
import { ConsoleSocket } from '../../sys/unix-socket.ts';
import type { ExecOptions, ExecProcess } from '../handler.ts';
import { type OciRuntime, type RuntimeExecOptions, tryReadPidFile } from './runtime.ts';

/** The code of a command whose end nobody saw, as for a container. */
const UNKNOWN_EXIT_CODE = 255;

/** What a command is started with. */
export interface ExecParts {
  runtime: OciRuntime;
  paths: Paths;
  poller: Poller;
}

/**
 * Starts a command in a container. It is this process's child, and leads a session and a process group of its own;
 * the pipes or the pty are its only ties: when berthd ends, its input ends, its terminal hangs up, and the
 * machine's init reaps it.
 *
 * @param signal ends the start; not what has been started
 * @throws BerthError `internal` with the OCI runtime's message when it cannot be started
 */
export async function startExec(
  parts: ExecParts,
  id: string,
  process: Process,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<ExecProcess> {
  const files = parts.paths.exec(newId().slice(0, 16));
  // Not by other threads, nine times waited for: these are small files of berth's own, in memory as a rule.
  mkdirSync(files.dir, { recursive: true, mode: 0o700 });
  try {
    writeFileSync(files.process, stringifyOci(process));
    const start = (more: Pick<RuntimeExecOptions, 'stdio' | 'consoleSocket'>) =>
      parts.runtime.startProcess(id, { files, signal, ...more });
    return options.tty
      ? await withTerminal(parts, files.console, options, start)
      : await withPipes(parts, options, (stdio) => start({ stdio }));
  } catch (e: unknown) {
    endUnwanted(parts, files.pid);
    throw isErrno(e, 'ENOENT', 'EACCES') ? during('OCI runtime', e) : e;
  } finally {
    rmSync(files.dir, { recursive: true, force: true });
  }
}

type Stdio = { stdin?: number; stdout?: number; stderr?: number };

async function withPipes(
  s: ExecParts,
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
    return {
      exited: exitOf(s, pid),
      ...streams,
      resize: () => {},
      kill: () => killGroup(pid),
      release,
    };
  } catch (e: unknown) {
    release();
    throw e;
  }
}

async function withTerminal(
  s: ExecParts,
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
      exited: exitOf(s, pid),
      stdin: terminal,
      stdout: terminal,
      resize: (size) => {
        if (terminal.fd >= 0) setWindowSize(terminal.fd, size);
      },
      kill: () => killGroup(pid),
      release: () => terminal.destroy(),
    };
  } finally {
    socket.close();
  }
}

function exitOf(s: ExecParts, pid: number): Promise<number> {
  return s.poller.orphanExit(pid).then(
    (code) => code ?? UNKNOWN_EXIT_CODE,
    () => UNKNOWN_EXIT_CODE,
  );
}

/** A runtime that was stopped half-way may have started the command already. */
function endUnwanted(s: ExecParts, pidFile: string): void {
  const pid = tryReadPidFile(pidFile);
  if (pid === undefined) return;
  killGroup(pid);
  void exitOf(s, pid);
}

/** SIGKILL to a command with its process group. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (e: unknown) {
    if (!isErrno(e, 'ESRCH')) throw e;
  }
}
