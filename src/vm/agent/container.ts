import { type FSWatcher, watch } from 'node:fs';
import { mkdir, open, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { parseFlatKeyed } from '../../../cgroups/parse.ts';
import { procsOf } from '../../../cgroups/tree.ts';
import { BerthError, isErrno, notFound } from '../../errors.ts';
import { syncFileSystem } from '../../sys/power.ts';
import type { Ended } from '../../sys/reap.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import type { AgentEvent, Params } from '../protocol/messages.ts';
import { SHARE_PATH } from '../protocol/names.ts';
import { GuestProcess, type ProcessStreams } from './process.ts';
import type { GuestRuntime } from './runtime.ts';
import { CGROUP_ROOT, CONTAINERS_CGROUP, STATE_DIR } from './system.ts';

/** What containers need of the agent. */
export interface ContainerParts {
  runtime: GuestRuntime;
  tell(event: AgentEvent): void;
}

/** One container of the guest: runc's, with its processes and its streams. */
export class Container {
  readonly id: string;
  readonly #parts: ContainerParts;
  readonly #execs = new Map<string, GuestProcess>();
  #init: GuestProcess | undefined;
  #oomKills = 0n;
  #watcher: FSWatcher | undefined;

  constructor(id: string, parts: ContainerParts) {
    this.id = id;
    this.#parts = parts;
  }

  /** Of its control group. */
  get cgroup(): string {
    return `${CGROUP_ROOT}${CONTAINERS_CGROUP}/${this.id}`;
  }

  get dir(): string {
    return `${STATE_DIR}/containers/${this.id}`;
  }

  /** @throws BerthError `notFound` before {@link create} or for an unknown exec */
  process(execId?: string): GuestProcess {
    const found = execId === undefined ? this.#init : this.#execs.get(execId);
    if (found !== undefined) return found;
    throw notFound(execId === undefined ? `container "${this.id}"` : `exec "${execId}" of "${this.id}"`);
  }

  /** Makes it up to where its init waits for `start`. @throws BerthError with runc's message; nothing is left */
  async create(config: string, streams: ProcessStreams, params: Params<'createContainer'>): Promise<number> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
    try {
      await writeFile(`${this.dir}/config.json`, config);
      this.#init = await this.#start(streams, params, undefined, (more) => [
        ...['create', '--bundle', this.dir, ...more, this.id],
      ]);
      this.#watchMemory();
      return this.#init.pid;
    } catch (e: unknown) {
      await this.remove().catch(() => {});
      throw e;
    }
  }

  async start(): Promise<void> {
    this.process();
    await this.#parts.runtime.run(['start', this.id]);
  }

  /** Starts another process in it. @throws BerthError `alreadyExists`; `internal` with runc's message */
  async exec(streams: ProcessStreams, params: Params<'exec'>): Promise<number> {
    const { execId } = params;
    if (this.#execs.has(execId)) throw new BerthError('alreadyExists', `exec "${execId}" exists`);
    const file = `${this.dir}/exec-${execId}.json`;
    try {
      await writeFile(file, params.process);
      const process = await this.#start(streams, params, execId, (more) => [
        ...['exec', '--detach', '--process', file, ...more, this.id],
      ]);
      this.#execs.set(execId, process);
      return process.pid;
    } finally {
      await rm(file, { force: true });
    }
  }

  /** Forgets an exec that has ended. */
  removeExec(execId: string): void {
    if (this.#execs.get(execId)?.exit !== undefined) this.#execs.delete(execId);
  }

  /** A signal for every process. @returns whether there was one */
  signalAll(signal: number): boolean {
    const pids = this.pids();
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch (e: unknown) {
        if (!isErrno(e, 'ESRCH')) throw e;
      }
    }
    return pids.length > 0;
  }

  /** Of all its processes, in the guest. */
  pids(): number[] {
    return procsOf([this.cgroup]);
  }

  /** Ends what runs of it, and forgets it. Repeatable. */
  async remove(): Promise<void> {
    this.#watcher?.close();
    await writeFile(`${this.cgroup}/cgroup.kill`, '1').catch(() => {});
    await this.#init?.ended;
    await this.#parts.runtime.delete(this.id);
    await rmdir(this.cgroup).catch(() => {});
    await rm(this.dir, { recursive: true, force: true });
    // What the kernel remembers of the container's files, the host's file server keeps open.
    await writeFile('/proc/sys/vm/drop_caches', '2');
  }

  async #start(
    streams: ProcessStreams,
    { terminal, size }: Pick<Params<'exec'>, 'terminal' | 'size'>,
    execId: string | undefined,
    verb: (more: readonly string[]) => readonly string[],
  ): Promise<GuestProcess> {
    const { runtime } = this.#parts;
    const process = await GuestProcess.start({ runtime, streams, terminal, size, verb });
    void process.ended.then((ended) => this.#onExit(process, ended, execId));
    return process;
  }

  /** The host may end the machine as soon as it hears of the exit: everything else comes first. */
  async #onExit(process: GuestProcess, { code, signal }: Ended, execId: string | undefined): Promise<void> {
    const time = nowNs();
    await this.#lookForOom();
    await process.drained();
    if (execId === undefined) await syncShare();
    this.#parts.tell({
      event: 'exit',
      id: this.id,
      ...(execId === undefined ? {} : { execId }),
      code,
      ...(signal === undefined ? {} : { signal }),
      time: String(time),
    });
  }

  /** The kernel notifies watchers of a cgroup's event files (Documentation/admin-guide/cgroup-v2.rst). */
  #watchMemory(): void {
    try {
      this.#watcher = watch(`${this.cgroup}/memory.events`, () => void this.#lookForOom());
      this.#watcher.on('error', () => this.#watcher?.close());
    } catch (e: unknown) {
      // The container has ended already.
      if (!isErrno(e, 'ENOENT')) throw e;
    }
  }

  async #lookForOom(): Promise<void> {
    const text = await readFile(`${this.cgroup}/memory.events`, 'utf8').catch(() => undefined);
    const kills = parseFlatKeyed(text).get('oom_kill') ?? 0n;
    if (kills <= this.#oomKills) return;
    this.#oomKills = kills;
    this.#parts.tell({ event: 'oom', id: this.id });
  }
}

/** What the container wrote is on the host then, as far as the file system can. */
async function syncShare(): Promise<void> {
  try {
    const file = await open(SHARE_PATH, 'r');
    try {
      await syncFileSystem(file.fd);
    } finally {
      await file.close();
    }
  } catch (e: unknown) {
    if (!isErrno(e, 'ENOENT')) throw e;
  }
}
