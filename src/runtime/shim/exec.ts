import { readFile, rm } from 'node:fs/promises';
import { Writable } from 'node:stream';
import { isErrno, messageOf } from '../../errors.ts';
import { newId } from '../../id.ts';
import type { Logger } from '../../log.ts';
import type { Paths } from '../../paths.ts';
import type { TaskClient } from '../../shim/task.ts';
import { signalNumber } from '../../signals.ts';
import { stringifyOci } from '../../spec/json.ts';
import type { Process } from '../../spec/types.ts';
import { PolledStream } from '../../sys/polled-stream.ts';
import type { Poller } from '../../sys/poller.ts';
import { identify, isAlive, type ProcessIdentity } from '../../sys/process-identity.ts';
import type { ExecOptions, ExecProcess } from '../handler.ts';
import { makeFifos, openReader, openWriter, type StdioPaths } from './fifos.ts';

/** The code of a command whose end nobody saw, as for a container. */
const UNKNOWN_EXIT_CODE = 255;
const KILL = signalNumber('SIGKILL') ?? 9;
const HANG_UP = signalNumber('SIGHUP') ?? 1;

/** What a command is started with. */
export interface ShimExecParts {
  tasks: TaskClient;
  paths: Paths;
  poller: Poller;
  log: Logger;
}

/** One command, as it runs. */
interface Command {
  id: string;
  execId: string;
  dir: string;
  leader: ProcessIdentity | undefined;
}

interface Streams {
  stdin?: Writable;
  stdout: PolledStream;
  stderr?: PolledStream;
}

/**
 * Starts a command in a container through its shim.
 *
 * @param signal ends the start, not what has been started
 * @throws BerthError `internal` with the shim's message; the signal's reason
 */
export async function startExec(
  parts: ShimExecParts,
  id: string,
  spec: Process,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<ExecProcess> {
  const { tasks, paths } = parts;
  const execId = newId().slice(0, 16);
  const { dir } = paths.exec(execId);
  const streams: Partial<Streams> = {};
  let leader: ProcessIdentity | undefined;
  const forget = async () => {
    for (const stream of Object.values(streams)) stream.destroy();
    await tasks
      .delete(id, execId)
      .catch((e: unknown) =>
        parts.log.debug({ container: id, reason: messageOf(e) }, 'a command could not be forgotten'),
      );
    await rm(dir, { recursive: true, force: true });
  };
  try {
    const fifos = await makeFifos(dir, options);
    Object.assign(streams, openOutputs(parts.poller, fifos));
    await tasks.exec(id, execId, stringifyOci(spec), { terminal: options.tty, ...fifos });
    signal.throwIfAborted();
    const pid = await tasks.start(id, execId);
    leader = await hostProcess(pid, id);
    if (signal.aborted) {
      await tasks.kill(id, KILL, { execId }).catch(() => {});
      await tasks.wait(id, execId).catch(() => {});
    }
    signal.throwIfAborted();
    if (fifos.stdin !== undefined) streams.stdin = openInput(parts, id, execId, fifos.stdin);
  } catch (e: unknown) {
    await forget();
    throw e;
  }
  return running(parts, { id, execId, dir, leader }, options, streams as Streams);
}

/**
 * Kills the commands that an earlier berthd ran in a container: nobody reads what they say or waits for them. Those of
 * an OCI runtime end with berthd by themselves.
 */
export async function endStrayCommands(tasks: TaskClient, id: string): Promise<void> {
  for (const { pid, execId } of await tasks.processes(id)) {
    if (execId === undefined) continue;
    const leader = await hostProcess(pid, id);
    if (leader !== undefined) killGroup(leader);
    await tasks.kill(id, KILL, { execId }).catch(() => {});
    await tasks.wait(id, execId);
    await tasks.delete(id, execId);
  }
}

function running(
  { tasks }: ShimExecParts,
  { id, execId, dir, leader }: Command,
  options: ExecOptions,
  streams: Streams,
): ExecProcess {
  const size = options.initialSize?.();
  const resize: ExecProcess['resize'] = (told) => {
    if (options.tty) tasks.resizePty(id, execId, told).catch(() => {});
  };
  if (size !== undefined) resize(size);
  let isOver = false;
  const exited = tasks.wait(id, execId).then(
    ({ code }) => code,
    () => UNKNOWN_EXIT_CODE,
  );
  // The shim deletes when all output is copied, so that it can still be read, from FIFOs without names.
  void exited
    .then(() => {
      isOver = true;
      return tasks.delete(id, execId);
    })
    .catch(() => {})
    .then(() => rm(dir, { recursive: true, force: true }));
  // What nobody wants must be read all the same, or the command would stand still.
  if (!options.stdout) streams.stdout.resume();
  if (!options.stderr) streams.stderr?.resume();
  const kill = (number: number) => void tasks.kill(id, number, { execId }).catch(() => {});
  return {
    exited,
    ...(streams.stdin === undefined ? {} : { stdin: streams.stdin }),
    ...(options.stdout ? { stdout: streams.stdout } : {}),
    ...(options.stderr && streams.stderr !== undefined ? { stderr: streams.stderr } : {}),
    resize,
    kill: () => {
      if (leader !== undefined) killGroup(leader);
      kill(KILL);
    },
    release: () => {
      for (const stream of Object.values(streams)) stream.destroy();
      if (options.tty && !isOver) kill(HANG_UP);
    },
  };
}

function openOutputs(poller: Poller, { stdout, stderr }: StdioPaths): Streams {
  const reader = (path: string) => {
    const stream = new PolledStream(poller, openReader(path));
    stream.on('error', () => {});
    return stream;
  };
  return { stdout: reader(stdout), ...(stderr === undefined ? {} : { stderr: reader(stderr) }) };
}

/** The shim has a writing end of its own, so the end of input is told to it as well. */
function openInput({ poller, tasks }: ShimExecParts, id: string, execId: string, path: string): Writable {
  let fd: number;
  try {
    fd = openWriter(path);
  } catch (e: unknown) {
    if (!isErrno(e, 'ENXIO')) throw e;
    // The command has ended already, and takes nothing more.
    return new Writable({ write: (_chunk, _encoding, done) => done() });
  }
  const stdin = new PolledStream(poller, fd);
  stdin.on('error', () => {});
  stdin.once('finish', () => stdin.destroy());
  stdin.once('close', () => void tasks.closeStdin(id, execId).catch(() => {}));
  return stdin;
}

/**
 * The command as a process of this host, if it is one: a VM's shim answers a pid of the guest. The container's id is
 * in the names of its cgroups, and in no other's.
 */
async function hostProcess(pid: number, id: string): Promise<ProcessIdentity | undefined> {
  const cgroups = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '');
  return cgroups.includes(id) ? identify(pid) : undefined;
}

/** The API kills one process only; what it has started in its group would go on. */
function killGroup(leader: ProcessIdentity): void {
  if (!isAlive(leader)) return;
  try {
    process.kill(-leader.pid, 'SIGKILL');
  } catch (e: unknown) {
    if (!isErrno(e, 'ESRCH')) throw e;
  }
}
