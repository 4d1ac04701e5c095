import { isAbsolute, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { BerthError, messageOf, notFound } from '../../errors.ts';
import type { TaskEventName } from '../../shim/protos.ts';
import type { ProcessEnd } from '../../shim/task.ts';
import { stringifyOci } from '../../spec/json.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import type { AgentEvent, Result } from '../protocol/messages.ts';
import { CpuSets, hostCpus } from './cpuset.ts';
import { KILLED_CODE, writeEnd } from './end-file.ts';
import { guestResources } from './guest-spec.ts';
import type { Boot, Log, Machine } from './machine.ts';
import { type JsonObject, OciSpec, objectOf } from './oci.ts';
import { TaskProcess } from './process.ts';
import { roleOf } from './role.ts';
import { mountRootfs, type RootfsMount, rootDisks, unmountRootfs } from './rootfs.ts';
import { updatedLimits } from './size.ts';
import { ProcessStdio, type StdioPaths } from './stdio.ts';
import { timestamp } from './timestamp.ts';

/** What a {@link Pod} works with. */
export interface PodParts {
  boot: Boot;
  /** Tells the daemon; fields are those of the message. */
  publish(name: TaskEventName, fields: object): void;
  log: Log;
  /** Whether this host's OOM killer has struck in the machine's cgroup. Never rejects. */
  isOutOfMemory(): Promise<boolean>;
}

/** A container to be made. */
export interface NewTask {
  id: string;
  bundle: string;
  /** Mounts that make the root file system; none when it is mounted. */
  rootfs: readonly RootfsMount[];
  stdio: StdioPaths;
}

/** One sandbox or container: its first process and further ones, by their ids. */
interface Task {
  /** Without a process in the guest: it stands for the machine. */
  isSandbox: boolean;
  /** The machine is for this container alone, and ends with it. */
  isSingle: boolean;
  bundle: string;
  /** Where its root file system was mounted here; undefined when somebody else has mounted it. */
  mounted: string | undefined;
  init: TaskProcess;
  execs: Map<string, TaskProcess>;
  /** OCI processes that Start has still to run. */
  planned: Map<string, JsonObject>;
}

/** The tasks of one shim: a sandbox's machine and the containers in it. */
export class Pod {
  readonly #parts: PodParts;
  readonly #tasks = new Map<string, Task>();
  readonly #cpus = new CpuSets();
  #machine: Machine | undefined;

  constructor(parts: PodParts) {
    this.#parts = parts;
  }

  get isEmpty(): boolean {
    return this.#tasks.size === 0;
  }

  /**
   * Boots the machine, or makes a container in it. Returns the hypervisor's pid, which stands for them on this host.
   *
   * @throws BerthError `alreadyExists`; `unimplemented` for what cannot work in a machine; the guest's own
   */
  async create(wanted: NewTask): Promise<number> {
    const { id, bundle, stdio } = wanted;
    if (this.#tasks.has(id)) throw new BerthError('alreadyExists', `task "${id}" exists`);
    const spec = await OciSpec.read(bundle);
    const { kind } = roleOf(spec.annotations);
    const init = new TaskProcess(id, '', stdio);
    const task: Task = {
      ...{ isSandbox: kind === 'sandbox', isSingle: kind === 'single', bundle, init },
      ...{ mounted: undefined, execs: new Map(), planned: new Map() },
    };
    // Before anything is waited for: the same id must not be made twice, and a Kill must find it.
    this.#tasks.set(id, task);
    try {
      const machine = kind === 'container' ? this.#running() : await this.#bootFor(spec);
      if (!task.isSandbox) await this.#makeContainer(machine, task, spec, wanted);
      init.pid = machine.pid;
    } catch (e: unknown) {
      this.#tasks.delete(id);
      init.close();
      await this.#undoCreate(task);
      throw e;
    }
    const io = { stdin: stdio.stdin, stdout: stdio.stdout, stderr: stdio.stderr, terminal: stdio.terminal };
    const { pid } = init;
    this.#parts.publish('TaskCreate', { container_id: id, bundle, rootfs: wanted.rootfs, io, pid });
    return pid;
  }

  /** Runs a container's command or a further process. Returns its pid. */
  async start(id: string, execId: string): Promise<number> {
    const task = this.#task(id);
    if (execId !== '') return this.#startExec(task, execId);
    const { init, isSandbox } = task;
    init.checkCreated();
    const { pid } = init;
    const begin = async (): Promise<void> => {
      if (!isSandbox) await this.#running().agent.call('start', { id });
      init.started(pid);
      this.#parts.publish('TaskStart', { container_id: id, pid });
    };
    await init.whileStarting(begin());
    return pid;
  }

  /** Describes a further process, an OCI process object. */
  exec(id: string, execId: string, process: unknown, stdio: StdioPaths): void {
    const task = this.#task(id);
    if (task.isSandbox) throw new BerthError('precondition', 'a sandbox has no commands');
    if (execId === '' || task.execs.has(execId))
      throw new BerthError('alreadyExists', `process "${execId}" exists`);
    const { apparmorProfile, selinuxLabel, ...planned } = objectOf(process, 'spec');
    task.planned.set(execId, planned);
    task.execs.set(execId, new TaskProcess(id, execId, stdio));
    this.#parts.publish('TaskExecAdded', { container_id: id, exec_id: execId });
  }

  /** @throws BerthError `notFound` when it has ended, as containerd wants it */
  async kill(id: string, execId: string, signal: number, all: boolean): Promise<void> {
    const task = this.#task(id);
    const process = this.process(id, execId);
    if (process.end !== undefined) throw new BerthError('notFound', 'the process has ended');
    if (task.isSandbox) {
      // It does nothing that a signal could change but exist.
      void this.#machine?.stop();
      return;
    }
    if (execId !== '' && process.status === 'CREATED') {
      this.#finish(process, { code: 128 + signal, at: nowNs() });
      return;
    }
    const more = { ...(execId === '' ? {} : { execId }), ...(all ? { all } : {}) };
    const { sent } = await this.#running().agent.call('signal', { id, signal, ...more });
    if (!sent) throw new BerthError('notFound', 'the process has ended');
  }

  /** The first process of a task, or a further one. @throws BerthError `notFound` */
  process(id: string, execId: string): TaskProcess {
    const task = this.#task(id);
    const process = execId === '' ? task.init : task.execs.get(execId);
    if (process === undefined) throw notFound(`process "${execId}"`);
    return process;
  }

  /** The hypervisor's; 0 for a container that there is not. */
  pidOf(id: string): number {
    return this.#tasks.get(id)?.init.pid ?? 0;
  }

  bundleOf(id: string): string {
    return this.#task(id).bundle;
  }

  /** Forgets a process that has ended. @throws BerthError `precondition` when it runs */
  async delete(id: string, execId: string): Promise<{ pid: number; end: ProcessEnd }> {
    const task = this.#task(id);
    const process = this.process(id, execId);
    const end =
      process.end ?? (process.status === 'CREATED' ? await this.#discard(task, process) : undefined);
    if (end === undefined) throw new BerthError('precondition', 'the process runs: kill it first');
    await process.drained();
    if (execId !== '') {
      await this.#machine?.agent.call('remove', { id, execId }).catch(() => {});
      task.execs.delete(execId);
      task.planned.delete(execId);
    } else {
      await this.#remove(task);
      const exited_at = timestamp(end.at);
      this.#parts.publish('TaskDelete', {
        ...{ container_id: id, id, pid: process.pid, exit_status: end.code },
        ...(exited_at === undefined ? {} : { exited_at }),
      });
    }
    return { pid: process.pid, end };
  }

  /** Guest pids of a container's processes; those of an Exec with its id. */
  async pids(id: string): Promise<{ pid: number; execId?: string }[]> {
    const { isSandbox, execs, init } = this.#task(id);
    if (isSandbox) return [{ pid: init.pid }];
    const { pids } = await this.#running().agent.call('pids', { id });
    const ofExecs = new Map(
      [...execs.values()].filter((e) => e.status === 'RUNNING').map((e) => [e.pid, e.execId]),
    );
    const others = [...ofExecs].filter(([pid]) => !pids.includes(pid)).map(([pid]) => pid);
    return [...pids, ...others].map((pid) => {
      const execId = ofExecs.get(pid);
      return { pid, ...(execId === undefined ? {} : { execId }) };
    });
  }

  async resizePty(id: string, execId: string, width: number, height: number): Promise<void> {
    this.process(id, execId);
    const more = execId === '' ? {} : { execId };
    await this.#running().agent.call('resize', { id, width, height, ...more });
  }

  closeStdin(id: string, execId: string): void {
    this.process(id, execId).closeStdin();
  }

  /** @param resources the OCI specification's object */
  async update(id: string, resources: unknown): Promise<void> {
    const { isSandbox } = this.#task(id);
    if (isSandbox) return this.#running().resize(updatedLimits(resources));
    await this.#running().runOn(this.#cpus.set(id, hostCpus(resources)));
    const text = stringifyOci(guestResources(resources));
    await this.#running().agent.call('update', { id, resources: text });
  }

  async freeze(id: string, verb: 'pause' | 'resume'): Promise<void> {
    this.#task(id);
    await this.#running().agent.call(verb, { id });
    this.#parts.publish(verb === 'pause' ? 'TaskPaused' : 'TaskResumed', { container_id: id });
  }

  /** Of a container by its cgroup in the guest; of a sandbox the sum of all. */
  async stats(id: string): Promise<Result<'stats'> | Result<'podStats'>> {
    const { isSandbox } = this.#task(id);
    return isSandbox ? this.#running().agent.call('podStats', {}) : this.figures(id);
  }

  /** Of a container. */
  async figures(id: string): Promise<Result<'stats'>> {
    this.#task(id);
    return this.#running().agent.call('stats', { id });
  }

  /** Connects to a port of the guest's loopback. @throws BerthError `unavailable` when nothing listens */
  async dial(port: number): Promise<Duplex> {
    const { agent } = this.#running();
    const stream = agent.openStream({ halfOpen: true });
    await agent.call('dial', { port, streamId: stream.id });
    return stream;
  }

  /** Ends the machine, whatever runs in it. Repeatable. */
  async close(): Promise<void> {
    await this.#machine?.stop();
    for (const { init, execs } of this.#tasks.values()) for (const p of [init, ...execs.values()]) p.close();
  }

  #task(id: string): Task {
    const task = this.#tasks.get(id);
    if (task === undefined) throw notFound(`task "${id}"`);
    return task;
  }

  #running(): Machine {
    if (this.#machine === undefined) throw new BerthError('unavailable', 'the virtual machine does not run');
    return this.#machine;
  }

  async #bootFor(spec: OciSpec): Promise<Machine> {
    if (this.#machine !== undefined) throw new BerthError('alreadyExists', 'the shim has a virtual machine');
    const machine = await this.#parts.boot(spec, (event) => this.#onEvent(event));
    this.#machine = machine;
    void machine.ended.then((reason) => this.#onMachineEnd(reason));
    return machine;
  }

  async #onMachineEnd(reason: string): Promise<void> {
    const isOutOfMemory = await this.#parts.isOutOfMemory();
    const why = isOutOfMemory ? `${reason}; the pod's cgroup was out of memory` : reason;
    this.#parts.log('warn', `the virtual machine has ended: ${why}`);
    for (const { isSandbox, init, execs } of this.#tasks.values()) {
      // Their memory was what the machine was killed for.
      if (isOutOfMemory && !isSandbox && init.end === undefined)
        this.#parts.publish('TaskOOM', { container_id: init.id });
      for (const process of [...execs.values(), init])
        this.#finish(process, { code: KILLED_CODE, at: nowNs() });
    }
  }

  async #makeContainer(machine: Machine, task: Task, spec: OciSpec, wanted: NewTask): Promise<void> {
    const { id, bundle, stdio } = wanted;
    const disks = machine.takesDisks ? rootDisks(wanted.rootfs) : undefined;
    const rootfs = isAbsolute(spec.rootPath) ? spec.rootPath : join(bundle, spec.rootPath);
    if (disks === undefined) {
      if (wanted.rootfs.length > 0) task.mounted = rootfs;
      mountRootfs(wanted.rootfs, rootfs);
    }
    await machine.runOn(this.#cpus.set(id, hostCpus(spec.linux.resources)));
    const guestSpec = await machine.share(id, spec, disks ?? rootfs);
    const { streams } = this.#join(machine, task.init, stdio);
    const request = { id, spec: stringifyOci(guestSpec), streams, terminal: stdio.terminal };
    await machine.agent.call('createContainer', request);
  }

  /** Opens a process's streams on both sides. */
  #join(machine: Machine, process: TaskProcess, paths: StdioPaths): { streams: StreamIds } {
    const { agent } = machine;
    const streams = {
      ...(paths.stdin === '' ? {} : { stdin: agent.openStream() }),
      stdout: agent.openStream(),
      ...(paths.terminal ? {} : { stderr: agent.openStream() }),
    };
    process.attach(new ProcessStdio(paths, streams));
    return {
      streams: Object.fromEntries(Object.entries(streams).map(([name, { id }]) => [name, id])),
    };
  }

  async #startExec({ init, execs, planned }: Task, execId: string): Promise<number> {
    const { id } = init;
    const process = execs.get(execId);
    const spec = planned.get(execId);
    if (process === undefined || spec === undefined) throw notFound(`process "${execId}"`);
    process.checkCreated();
    const machine = this.#running();
    const { streams } = this.#join(machine, process, process.paths);
    const { terminal } = process.paths;
    const text = stringifyOci({ ...spec, terminal });
    const request = { id, execId, process: text, streams, terminal };
    const begin = async (): Promise<void> => {
      const { pid } = await machine.agent.call('exec', request);
      process.started(pid);
      this.#parts.publish('TaskExecStarted', { container_id: id, exec_id: execId, pid });
    };
    try {
      await process.whileStarting(begin());
    } catch (e: unknown) {
      process.close();
      this.#finish(process, { code: 255, at: nowNs() });
      throw e;
    }
    return process.pid;
  }

  /** A guest may tell of what there is not. */
  #onEvent(event: AgentEvent): void {
    switch (event.event) {
      case 'exit':
        return void this.#onExit(event);
      case 'oom':
        if (this.#tasks.has(event.id)) this.#parts.publish('TaskOOM', { container_id: event.id });
        return;
      case 'ready':
        return;
    }
  }

  async #onExit({ id, execId, code }: AgentEvent & { event: 'exit' }): Promise<void> {
    const task = this.#tasks.get(id);
    const process = execId === undefined ? task?.init : task?.execs.get(execId);
    if (process === undefined || (task?.isSandbox && execId === undefined)) return;
    // A command may end before the answer to its start has come; told in that order, nobody understood.
    await process.starting;
    const at = nowNs();
    // Whoever hears of the end looks at what the container has left.
    if (execId === undefined) await this.#machine?.bringBack(id);
    this.#finish(process, { code, at });
  }

  #finish(process: TaskProcess, end: ProcessEnd): void {
    if (!process.finish(end)) return;
    if (process.execId === '') this.#note(process.id, end);
    // The reader of its output sees the end when the last of it has come.
    void process.drained();
    const { id, execId, pid } = process;
    this.#parts.publish('TaskExit', {
      ...{ container_id: id, id: execId || id, pid, exit_status: end.code },
      exited_at: timestamp(end.at),
    });
  }

  #note(id: string, end: ProcessEnd): void {
    try {
      writeEnd(this.#task(id).bundle, end);
    } catch (e: unknown) {
      this.#parts.log('warn', `the end of "${id}" could not be noted: ${messageOf(e)}`);
    }
  }

  /** Ends what was made but never started, as a daemon does that has changed its mind. */
  async #discard({ isSandbox }: Task, process: TaskProcess): Promise<ProcessEnd> {
    const end = { code: KILLED_CODE, at: nowNs() };
    if (!isSandbox && process.execId === '') {
      await this.#machine?.agent.call('remove', { id: process.id });
    }
    process.finish(end);
    return end;
  }

  async #remove(task: Task): Promise<void> {
    const { id } = task.init;
    if (task.isSandbox || task.isSingle) await this.#machine?.stop();
    else await this.#machine?.agent.call('remove', { id }).catch(() => {});
    // What it had for itself may be somebody else's next.
    await this.#machine?.runOn(this.#cpus.delete(id)).catch(() => {});
    await this.#leave(task);
    this.#tasks.delete(id);
  }

  async #undoCreate(task: Task): Promise<void> {
    try {
      await this.#remove(task);
    } catch (e: unknown) {
      // The reason of the failure must not be hidden by this one; the delete verb does the rest.
      this.#parts.log('warn', `what was half made is not wholly taken down: ${messageOf(e)}`);
    }
  }

  async #leave({ init: { id }, isSandbox, mounted }: Task): Promise<void> {
    if (!isSandbox) await this.#machine?.unshare(id);
    if (mounted !== undefined) unmountRootfs(mounted);
  }
}

interface StreamIds {
  stdin?: number;
  stdout?: number;
  stderr?: number;
}
