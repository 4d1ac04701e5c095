import { mkdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Resources } from '../../../cgroups/types.ts';
import type { Attachment, AttachmentSinks } from '../../container/attachments.ts';
import { BerthError, kindOf, messageOf } from '../../errors.ts';
import type { Paths } from '../../paths.ts';
import type { ProcessEnd, RuncOptions, TaskClient, TaskMount } from '../../shim/task.ts';
import { deleteWithoutShim } from '../../shim/verbs.ts';
import { type Signal, signalNumber } from '../../signals.ts';
import { stringifyOci } from '../../spec/json.ts';
import { changedResources } from '../../spec/resources.ts';
import type { Process } from '../../spec/types.ts';
import { identify, isAlive, signal as sendSignal } from '../../sys/process-identity.ts';
import { orAborted } from '../../util/abort.ts';
import {
  type CreatedContainer,
  type ExecOptions,
  type ExecProcess,
  type GuestUsage,
  type HandledContainer,
  RuntimeCreateError,
  type RuntimeHandler,
  type TerminalSize,
} from '../handler.ts';
import { endStrayCommands, startExec } from './exec.ts';
import { makeFifos } from './fifos.ts';
import { startKeeper } from './keeper.ts';
import { endStrayShims, forgetShim, livingShim, Shim, type ShimParts } from './shim.ts';
import { ContainerStdio } from './stdio.ts';
import { toDetails } from './usage.ts';

const KILL = signalNumber('SIGKILL') ?? 9;
/** After SIGKILL only the kernel, or a VM, can hold a process; milliseconds. */
const KILL_WAIT_MS = 10_000;
/** How long berthd's start waits for what one shim says of one container, milliseconds. */
const STATE_MS = 2_000;
/** How long a shim may take to tell the end of a process that has ended, milliseconds. */
const TELL_MS = 1_000;
/** Calls, of five seconds each, that a shim may leave unanswered before it counts as stuck. */
const MAX_PINGS = 2;
/** Between two tries to reach a shim that lives but does not answer, milliseconds. */
const RECONNECT_MS = 500;
const RECONNECTS = 10;

/** What a {@link ShimHandler} works with. */
export interface ShimHandlerOptions extends ShimParts {
  paths: Paths;
  /** The handler's own name. */
  name: string;
  /** The program that holds sandboxes; here it holds FIFOs, too. */
  pause: string;
  systemdCgroup: boolean;
  /** The sandbox of a container, or the id itself when it is a sandbox's; undefined when it is neither. */
  sandboxOf(id: string): string | undefined;
}

/**
 * The handler of a containerd shim v2: one shim process for each sandbox, which makes the pause container and all
 * containers. What conmon does for an OCI runtime's containers is done here, in berthd: the log is copied from FIFOs
 * and the exit file written when the shim's Wait answers. Both outlive berthd: the shim remembers an end until it is
 * told to delete, and a keeper process holds the FIFOs.
 */
export class ShimHandler implements RuntimeHandler {
  readonly path: string;
  readonly needsPause = true;
  readonly #options: ShimHandlerOptions;
  /** By sandbox. */
  readonly #shims = new Map<string, Promise<Shim>>();
  /** By container, from its making to its end. */
  readonly #stdio = new Map<string, Promise<ContainerStdio>>();
  /** By container, while its end is waited for and written. */
  readonly #ends = new Map<string, Promise<void>>();
  #closing = false;

  constructor(options: ShimHandlerOptions) {
    this.#options = options;
    this.path = options.program.path;
  }

  async run(id: string, bundle: string): Promise<number> {
    const shim = Shim.start(this.#options, id, bundle);
    this.#shims.set(id, shim);
    const { tasks } = await this.#watched(id, shim);
    await this.#mark(bundle);
    const pid = await tasks.create(id, bundle, { terminal: false }, this.#createOptions());
    await tasks.start(id);
    return pid;
  }

  /** So that the death of its shim is noticed, and that it can log. */
  adopt(sandboxId: string): void {
    void this.#shim(sandboxId).catch((e: unknown) => this.#buryPause(sandboxId, e));
  }

  async create(container: HandledContainer, rootfs: readonly TaskMount[] = []): Promise<CreatedContainer> {
    const { id, sandboxId, config } = container;
    const { bundle } = this.#options.paths.container(id);
    const { tasks } = await this.#shim(sandboxId);
    const fifos = await makeFifos(join(bundle, 'stdio'), config);
    const monitorPid = startKeeper(this.#options.pause, id, fifos);
    const keeper = identify(monitorPid);
    try {
      await this.#stdioOf(container);
      await this.#mark(bundle);
      const stdio = { terminal: config.tty, ...fifos };
      const pid = await tasks.create(id, bundle, stdio, { ...this.#createOptions(), rootfs });
      return { pid, monitorPid };
    } catch (e: unknown) {
      if (keeper !== undefined) sendSignal(keeper, 'SIGKILL');
      await this.#forgetStdio(id);
      if (['unavailable', 'deadline', 'cancelled'].includes(kindOf(e)) || !(e instanceof BerthError)) throw e;
      throw new RuntimeCreateError(e.message);
    }
  }

  async start(id: string): Promise<void> {
    await (await this.tasksOf(id)).start(id);
  }

  async isStarted(id: string): Promise<boolean> {
    const status = await (await this.tasksOf(id)).state(id);
    return status === 'RUNNING' || status === 'PAUSED' || status === 'PAUSING';
  }

  async kill(id: string, signal: Signal): Promise<void> {
    const number = signalNumber(signal);
    if (number === undefined) throw new BerthError('invalid', `there is no signal ${signal}`);
    await (await this.tasksOf(id)).kill(id, number);
  }

  async delete(id: string): Promise<void> {
    const sandboxId = this.#options.sandboxOf(id) ?? id;
    const dir = this.#bundle(id, sandboxId);
    const shim = await this.#answering(sandboxId);
    const isMade = await isMarked(dir);
    const isDeleted = isMade && shim !== undefined && (await killAndDelete(shim.tasks, id));
    await this.#forgetStdio(id);
    // An end that is being written would come after all else of the container was removed.
    if (isDeleted) await atMost(KILL_WAIT_MS, this.#ends.get(id));
    if (id === sandboxId) {
      await shim?.end(id);
      this.#shims.delete(id);
      if (shim === undefined) await endStrayShims(id);
    }
    // Also what a living shim does not know: a making that was cut off may have left its half.
    if (isMade && !isDeleted) await this.deleteWithoutShim(id, dir);
    await unmark(dir);
    if (id === sandboxId) await forgetShim(dir);
  }

  /** A container that has outlived its shim is killed, and so its end is known. */
  isMonitored({ sandboxId, init }: HandledContainer): boolean {
    return this.#isShimAlive(sandboxId) || (init !== undefined && isAlive(init));
  }

  /** The shim outlives its containers, or they end with it. */
  async hasEnded({ id, sandboxId }: HandledContainer): Promise<boolean> {
    if (!this.#isShimAlive(sandboxId)) return true;
    const state = this.tasksOf(id).then((tasks) => tasks.state(id));
    const patience = delay(STATE_MS, 'UNKNOWN', { ref: false });
    const hasEnded = (await Promise.race([state, patience]).catch(() => 'UNKNOWN')) === 'STOPPED';
    if (!hasEnded) void this.#endStrayCommands(id);
    return hasEnded;
  }

  async #endStrayCommands(id: string): Promise<void> {
    try {
      await endStrayCommands(await this.tasksOf(id), id);
    } catch (e: unknown) {
      this.#options.log.debug({ container: id, reason: messageOf(e) }, 'commands may be left in a container');
    }
  }

  async killAll(id: string): Promise<void> {
    await (await this.tasksOf(id)).kill(id, KILL, { all: true });
  }

  async usage(id: string, signal: AbortSignal): Promise<GuestUsage> {
    const answer = this.tasksOf(id).then((tasks) => tasks.stats(id));
    const details = toDetails(await orAborted(answer, signal));
    return { details, deviceName: (major, minor) => `${major}:${minor}` };
  }

  async update(id: string, resources: Resources): Promise<void> {
    await (await this.tasksOf(id)).update(id, stringifyOci(changedResources(resources)));
  }

  ended(container: HandledContainer): Promise<void> {
    const { id } = container;
    const end = this.#writeEnd(container).finally(() => this.#ends.delete(id));
    this.#ends.set(id, end);
    return end;
  }

  async exec(id: string, process: Process, options: ExecOptions, signal: AbortSignal): Promise<ExecProcess> {
    return startExec({ ...this.#options, tasks: await this.tasksOf(id) }, id, process, options, signal);
  }

  async reopenLog(container: HandledContainer): Promise<void> {
    await (await this.#stdioOf(container)).reopenLog();
  }

  async attach(container: HandledContainer, sinks: AttachmentSinks): Promise<Attachment> {
    const { id } = container;
    const stdio = await this.#stdioOf(container);
    return stdio.attach(sinks, async () => (await this.tasksOf(id)).closeStdin(id));
  }

  async resizeTerminal({ id }: HandledContainer, size: TerminalSize): Promise<void> {
    await (await this.tasksOf(id)).resizePty(id, '', size);
  }

  /** Lets go of all shims and FIFOs; pods go on. Repeatable. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const shim of this.#shims.values()) {
      await shim.then(
        (made) => made.close(),
        () => {},
      );
    }
    for (const id of [...this.#stdio.keys()]) await this.#forgetStdio(id);
  }

  #createOptions(): { runcOptions?: RuncOptions } {
    const { paths, name, systemdCgroup } = this.#options;
    // Other shims have options of their own, and a file for them.
    if (basename(this.path) !== 'containerd-shim-runc-v2') return {};
    // The shim puts its namespace, which is the handler's name, after it.
    return { runcOptions: { root: dirname(paths.runtime(name)), systemd_cgroup: systemdCgroup } };
  }

  #isShimAlive(sandboxId: string): boolean {
    return livingShim(this.#options.paths.sandbox(sandboxId).dir) !== undefined;
  }

  #bundle(id: string, sandboxId: string): string {
    const { paths } = this.#options;
    return id === sandboxId ? paths.sandbox(id).dir : paths.container(id).bundle;
  }

  /** The tasks of a container's or sandbox's shim. @throws BerthError `notFound`, `unavailable` */
  protected async tasksOf(id: string): Promise<TaskClient> {
    const sandboxId = this.#options.sandboxOf(id);
    if (sandboxId === undefined) throw new BerthError('notFound', `container "${id}" not found`);
    return (await this.#shim(sandboxId)).tasks;
  }

  /** The shim of a sandbox, connected. @throws BerthError `unavailable` when it has ended */
  async #shim(sandboxId: string): Promise<Shim> {
    const known = this.#shims.get(sandboxId);
    const shim = await known?.catch(() => undefined);
    if (shim?.isConnected) return shim;
    if (this.#closing) throw new BerthError('cancelled', 'berthd is stopping');
    // Another call may have begun to look for it meanwhile.
    const looking = this.#shims.get(sandboxId);
    if (looking !== undefined && looking !== known) return looking;
    const found = Shim.find(this.#options, sandboxId, this.#options.paths.sandbox(sandboxId).dir);
    this.#shims.set(sandboxId, found);
    return this.#watched(sandboxId, found);
  }

  /** The shim of a sandbox if it lives and answers. One that is stuck is killed, so that pods can be taken down. */
  async #answering(sandboxId: string): Promise<Shim | undefined> {
    const shim = await this.#shim(sandboxId).catch((e: unknown) => {
      if (!['unavailable', 'deadline'].includes(kindOf(e))) throw e;
      return undefined;
    });
    if (await shim?.answers(sandboxId)) return shim;
    await this.#killStuck(sandboxId, shim);
    return undefined;
  }

  async #killStuck(sandboxId: string, shim: Shim | undefined): Promise<void> {
    if (!this.#isShimAlive(sandboxId)) return;
    this.#options.log.warn({ sandbox: sandboxId }, 'the shim does not answer and is killed');
    if (shim === undefined) await endStrayShims(sandboxId);
    else await shim.kill(0);
  }

  /** Sees to it that the death of the shim is noticed when there is no container, too. */
  async #watched(sandboxId: string, starting: Promise<Shim>): Promise<Shim> {
    const shim = await starting;
    void shim.tasks.closed.then(async () => {
      if (this.#closing || shim.isEnding) return;
      await this.#again(shim);
      shim.close();
      // A new connection has its own watcher.
      await this.#shim(sandboxId).catch((e: unknown) => this.#buryPause(sandboxId, e));
    });
    return shim;
  }

  /** Waits, after the end of a connection, for the end of the process; one that lives on gets some time. */
  async #again(shim: Shim): Promise<void> {
    const patience = AbortSignal.timeout(RECONNECT_MS);
    await this.#options.poller.watchExit(shim.process, { signal: patience }).catch(() => {});
  }

  /** Ends the pause container of a dead shim: the sandbox is no longer what it is said to be. */
  async #buryPause(sandboxId: string, e: unknown): Promise<void> {
    const { log, paths, sandboxOf } = this.#options;
    if (this.#closing || sandboxOf(sandboxId) === undefined) return;
    log.warn({ sandbox: sandboxId, reason: messageOf(e) }, 'the shim has died; its sandbox ends with it');
    const { dir } = paths.sandbox(sandboxId);
    if (await isMarked(dir)) await this.deleteWithoutShim(sandboxId, dir);
  }

  /** Takes down what a dead shim has left; never rejects. @returns how it ended, if that is known */
  protected async deleteWithoutShim(id: string, dir: string): Promise<ProcessEnd | undefined> {
    const { program, protos, log } = this.#options;
    try {
      return await deleteWithoutShim(program, { id, dir }, protos);
    } catch (e: unknown) {
      // What it leaves is for the cgroup's and the mounts' own steps.
      log.warn(
        { object: id, reason: messageOf(e) },
        'the shim program could not clear up after its dead shim',
      );
      return undefined;
    }
  }

  async #mark(dir: string): Promise<void> {
    await writeFile(markPath(dir), '');
  }

  #stdioOf(container: HandledContainer): Promise<ContainerStdio> {
    const { id, config, logPath } = container;
    const known = this.#stdio.get(id);
    if (known !== undefined) return known;
    const dir = join(this.#options.paths.container(id).bundle, 'stdio');
    const opening = makeFifos(dir, config).then((fifos) =>
      ContainerStdio.open(this.#options, fifos, logPath),
    );
    this.#stdio.set(id, opening);
    opening.catch(() => this.#stdio.delete(id));
    return opening;
  }

  async #forgetStdio(id: string): Promise<void> {
    const stdio = await this.#stdio.get(id)?.catch(() => undefined);
    this.#stdio.delete(id);
    await stdio?.close();
  }

  /** Waits for the container's end, completes its log, and writes its exit file. */
  async #writeEnd(container: HandledContainer): Promise<void> {
    const { id, conmon: keeper } = container;
    const stdio = await this.#stdioOf(container).catch((e: unknown) => {
      this.#options.log.error({ container: id, reason: messageOf(e) }, 'the log cannot be written any more');
      return undefined;
    });
    const end = await this.#waitForEnd(container);
    await stdio?.finish();
    this.#stdio.delete(id);
    if (keeper !== undefined) sendSignal(keeper, 'SIGKILL');
    if (end !== undefined) await writeExit(this.#options.paths.container(id).exit, end);
  }

  /** Asks the shim to tell the end; one that is stuck when the init has long ended is killed. */
  async #wait(shim: Shim, { id, sandboxId, init }: HandledContainer): Promise<ProcessEnd> {
    const over = new AbortController();
    const { signal } = over;
    const suspect = async (): Promise<void> => {
      if (init === undefined) return;
      await this.#options.poller.watchExit(init, { signal });
      await delay(TELL_MS, undefined, { signal, ref: false });
      // Not at the first silence: a pod hangs on it, and the machine may be busy.
      for (let pings = 0; pings < MAX_PINGS; pings++) {
        if ((await shim.answers(sandboxId)) || signal.aborted) return;
      }
      await this.#killStuck(sandboxId, shim);
    };
    void suspect().catch(() => {});
    try {
      return await shim.tasks.wait(id);
    } finally {
      over.abort();
    }
  }

  /**
   * @returns undefined when nobody can tell
   * @throws BerthError `cancelled` when berthd stops before
   */
  async #waitForEnd(container: HandledContainer): Promise<ProcessEnd | undefined> {
    const { id, sandboxId } = container;
    for (let tries = 0; ; tries++) {
      const shim = await this.#shim(sandboxId).catch((e: unknown) => e);
      const end = shim instanceof Shim ? await this.#wait(shim, container).catch((e: unknown) => e) : shim;
      if (this.#closing) throw new BerthError('cancelled', 'berthd is stopping');
      if (!(end instanceof Error)) return end as ProcessEnd;
      if (kindOf(end) === 'notFound') return undefined;
      if (this.#isShimAlive(sandboxId) && tries < RECONNECTS) {
        await (shim instanceof Shim ? this.#again(shim) : delay(RECONNECT_MS, undefined, { ref: false }));
        continue;
      }
      this.#options.log.warn(
        { container: id, reason: end.message },
        'the shim tells no more of its container',
      );
      // Nobody must be left who could go on making what is about to be taken down.
      if (shim instanceof Shim) await shim.kill(0).catch(() => {});
      return this.deleteWithoutShim(id, this.#bundle(id, sandboxId));
    }
  }
}

/** In a bundle of which a shim may know a container, until it is deleted there. */
function markPath(dir: string): string {
  return join(dir, 'task');
}

function isMarked(dir: string): Promise<boolean> {
  return exists(markPath(dir));
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function unmark(dir: string): Promise<void> {
  await rm(markPath(dir), { force: true });
}

/**
 * Deletes a container that may still run.
 *
 * @returns whether the shim knew it
 * @throws BerthError when it is not gone in the end
 */
async function killAndDelete(tasks: TaskClient, id: string): Promise<boolean> {
  // Most often it has ended long ago, which is an error to a shim.
  await tasks.kill(id, KILL, { all: true }).catch(() => {});
  await atMost(KILL_WAIT_MS, tasks.wait(id));
  return tasks.delete(id);
}

/** Waits until `work` is over, in whatever way, but no longer than this; milliseconds. */
async function atMost(ms: number, work: Promise<unknown> | undefined): Promise<void> {
  const patience = new AbortController();
  const late = delay(ms, undefined, { signal: patience.signal, ref: false }).catch(() => {});
  await Promise.race([work?.catch(() => {}), late]);
  patience.abort();
}

/**
 * As conmon writes it: the code as text, and the time of the end as the file's. The file is whole or not there. What an
 * earlier berthd wrote stays: who tells the end again may know less than the shim that lived then.
 */
async function writeExit(path: string, { code, at }: ProcessEnd): Promise<void> {
  if (await exists(path)) return;
  const temporary = `${path}.tmp`;
  await mkdir(dirname(path), { recursive: true });
  await writeFile(temporary, String(code));
  if (at !== undefined) await utimes(temporary, Number(at) / 1e9, Number(at) / 1e9);
  await rename(temporary, path);
}
