import { readFileSync } from 'node:fs';
import { lstat, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { BerthError, isErrno, messageOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { ShimAddress } from '../../shim/bootstrap.ts';
import type { ShimProtos } from '../../shim/protos.ts';
import { TaskClient } from '../../shim/task.ts';
import { type ShimProgram, startShim } from '../../shim/verbs.ts';
import { writeFileAtomic } from '../../sys/atomic-file.ts';
import { endHelpers, findHelpers } from '../../sys/helpers.ts';
import { PolledStream } from '../../sys/polled-stream.ts';
import type { Poller } from '../../sys/poller.ts';
import { identify, isAlive, type ProcessIdentity, signal } from '../../sys/process-identity.ts';
import { makeFifo, openReader } from './fifos.ts';

/**
 * Names, in the environment of a shim and of all that it starts, the sandbox that it serves. Another variable than
 * that of helpers, which end with the daemon that started them.
 */
const SHIM_MARK = 'BERTH_SHIM';
/** A shim that was asked to end, or killed, and is still there after this; milliseconds. */
const END_MS = 5_000;
/** Of one line that a shim logs, characters. */
const MAX_LOG_LINE = 2_000;

/** What every shim is handled with. */
export interface ShimParts {
  program: ShimProgram;
  protos: ShimProtos;
  poller: Poller;
  log: Logger;
}

/** What is kept in the sandbox's directory, to find its shim again. */
interface ShimRecord extends ShimAddress {
  pid: number;
  /** Decimal. */
  startTime: string;
}

/** The shim of one sandbox: a process, and the connection to it. */
export class Shim {
  readonly tasks: TaskClient;
  readonly process: ProcessIdentity;
  readonly #address: ShimAddress;
  readonly #parts: ShimParts;
  readonly #messages: PolledStream;
  /** Its end is wanted, and no misfortune. */
  isEnding = false;

  private constructor(parts: ShimParts, record: ShimRecord, tasks: TaskClient, messages: PolledStream) {
    this.#parts = parts;
    this.#address = record;
    this.#messages = messages;
    this.tasks = tasks;
    this.process = processOf(record);
  }

  /**
   * Starts a shim for a sandbox, whose bundle is `dir`.
   *
   * @throws BerthError with the shim's message. What was started is left to {@link endStrayShims}.
   */
  static async start(parts: ShimParts, sandboxId: string, dir: string): Promise<Shim> {
    // The shim opens it for its messages and waits for a reader.
    const messages = openMessages(parts, sandboxId, dir);
    try {
      const address = await startShim(parts.program, { id: sandboxId, dir }, { [SHIM_MARK]: sandboxId });
      const tasks = await TaskClient.connect(address, parts.protos);
      const identity = identify(await tasks.shimPid(sandboxId));
      if (identity === undefined)
        throw new BerthError('internal', 'the shim ended as soon as it had started');
      const record = { ...address, pid: identity.pid, startTime: String(identity.startTime) };
      await writeFileAtomic(recordPath(dir), JSON.stringify(record));
      return new Shim(parts, record, tasks, messages);
    } catch (e: unknown) {
      messages.destroy();
      throw e;
    }
  }

  /**
   * Connects to the shim that an earlier call or an earlier berthd started.
   *
   * @throws BerthError `unavailable` when it has ended
   */
  static async find(parts: ShimParts, sandboxId: string, dir: string): Promise<Shim> {
    const record = await readFile(recordPath(dir), 'utf8').then(parseRecord, noRecord);
    if (record === undefined || !isAlive(processOf(record))) {
      throw new BerthError('unavailable', 'the shim has ended');
    }
    const tasks = await TaskClient.connect(record, parts.protos);
    return new Shim(parts, record, tasks, openMessages(parts, sandboxId, dir));
  }

  get isConnected(): boolean {
    return !this.tasks.isClosed;
  }

  /** Whether it answers calls at all; one that is stuck does not. */
  async answers(sandboxId: string): Promise<boolean> {
    return this.tasks.shimPid(sandboxId).then(
      () => true,
      () => false,
    );
  }

  /** Asks the shim to end, and ends it when it does not. Repeatable. */
  async end(sandboxId: string): Promise<void> {
    this.isEnding = true;
    await this.tasks
      .shutdown(sandboxId)
      .catch((e: unknown) =>
        this.#parts.log.warn({ sandbox: sandboxId, reason: messageOf(e) }, 'the shim does not shut down'),
      );
    await this.kill(END_MS);
    await removeSocket(this.#address.socket);
  }

  /** Kills the shim if it is still there after `grace` milliseconds. @throws BerthError `deadline` */
  async kill(grace: number): Promise<void> {
    const { poller } = this.#parts;
    const gone = (ms: number) => poller.watchExit(this.process, { signal: AbortSignal.timeout(ms) });
    if (
      grace > 0 &&
      (await gone(grace).then(
        () => true,
        () => false,
      ))
    )
      return this.close();
    signal(this.process, 'SIGKILL');
    try {
      await gone(END_MS);
    } catch (e: unknown) {
      throw new BerthError('deadline', `the shim (process ${this.process.pid}) does not end on SIGKILL`, {
        cause: e,
      });
    }
    this.close();
  }

  /** Lets go of the shim, which goes on. Repeatable. */
  close(): void {
    this.tasks.close();
    this.#messages.destroy();
  }
}

/** The shim of the sandbox in `dir` if it runs, without connecting. For a start, not for every call. */
export function livingShim(dir: string): ProcessIdentity | undefined {
  try {
    const record = parseRecord(readFileSync(recordPath(dir), 'utf8'));
    const process = record && processOf(record);
    return process !== undefined && isAlive(process) ? process : undefined;
  } catch (e: unknown) {
    return noRecord(e);
  }
}

/** Forgets the shim of a sandbox that has ended. */
export async function forgetShim(dir: string): Promise<void> {
  await rm(recordPath(dir), { force: true });
}

/**
 * Ends shims that were started for the sandbox, and all that they have started: those of a start that failed or was
 * cut off by berthd's death, and what a dead one has left.
 */
export async function endStrayShims(sandboxId: string): Promise<void> {
  for (;;) {
    const strays = await findHelpers(new Set([sandboxId]), { variable: SHIM_MARK });
    if (strays.length === 0) return;
    await endHelpers(strays);
    // A process that was killed may have started another since the look.
  }
}

function recordPath(dir: string): string {
  return join(dir, 'shim.json');
}

function parseRecord(text: string): ShimRecord | undefined {
  try {
    const { version, socket, pid, startTime } = Object(JSON.parse(text));
    const isRight =
      (version === 2 || version === 3) &&
      typeof socket === 'string' &&
      Number.isSafeInteger(pid) &&
      /^\d+$/.test(startTime);
    return isRight ? { version, socket, pid, startTime } : undefined;
  } catch {
    return undefined;
  }
}

function noRecord(e: unknown): undefined {
  if (!isErrno(e, 'ENOENT')) throw e;
}

function processOf({ pid, startTime }: ShimRecord): ProcessIdentity {
  return { pid, startTime: BigInt(startTime) };
}

/** A shim that was killed leaves its socket; only a socket is removed at a place that the shim has named. */
async function removeSocket(path: string): Promise<void> {
  const there = path.startsWith('/') ? await lstat(path).catch(() => undefined) : undefined;
  if (there?.isSocket()) await rm(path, { force: true });
}

/** Passes a shim's own messages on to berthd's log. */
function openMessages({ poller, log }: ShimParts, sandboxId: string, dir: string): PolledStream {
  const path = join(dir, 'log');
  makeFifo(path);
  const stream = new PolledStream(poller, openReader(path));
  stream.on('error', () => {});
  createInterface({ input: stream }).on('line', (line) =>
    log.debug({ sandbox: sandboxId, message: line.slice(0, MAX_LOG_LINE) }, 'message of a shim'),
  );
  return stream;
}
