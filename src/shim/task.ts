import type { FiguresResponse__Output as GuestFigures } from '../../proto/gen/berth/vm/v1/FiguresResponse.ts';
import type { Timestamp__Output } from '../../proto/gen/google/protobuf/Timestamp.ts';
import type { Metrics__Output as MetricsV1 } from '../../proto/gen/io/containerd/cgroups/v1/Metrics.ts';
import type { Metrics__Output as MetricsV2 } from '../../proto/gen/io/containerd/cgroups/v2/Metrics.ts';
import type { ShimProtos } from '../../proto/load-shim.ts';
import { BerthError, kindOf } from '../errors.ts';
import type { ShimAddress } from './bootstrap.ts';
import { TtrpcClient } from './ttrpc/client.ts';

/** Making a container may mean booting a VM, or wait for storage. */
const CREATE_MS = 120_000;
/** The other calls run an OCI runtime at most, or speak with an agent. */
const CALL_MS = 60_000;
/** A shim waits ten seconds for output itself before it deletes. */
const DELETE_MS = 60_000;
const CONNECT_MS = 5_000;
/** The type under which an OCI process goes into an Any (containerd/typeurl). */
const PROCESS_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
const RESOURCES_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources';
const RUNC_OPTIONS_TYPE = 'containerd.runc.v1.Options';
const PROCESS_DETAILS_TYPE = 'containerd.runc.v1.ProcessDetails';

/** How a process ended. */
export interface ProcessEnd {
  /** The code, or 128 + signal. */
  code: number;
  /** Nanoseconds since the epoch; undefined when the shim does not say. */
  at: bigint | undefined;
}

/** Paths of FIFOs; those left out are /dev/null. With a terminal there is no stderr. */
export interface TaskStdio {
  terminal: boolean;
  stdin?: string;
  stdout?: string;
  stderr?: string;
}

/** A mount of which the shim is to make a root file system, as containerd's snapshotters describe it. */
export interface TaskMount {
  type: string;
  source: string;
  options: readonly string[];
}

/** What containerd-shim-runc-v2 wants to know; other shims pay no attention to it. */
export interface RuncOptions {
  root: string;
  systemd_cgroup: boolean;
}

/** What berth's own shim answers beside. */
export type { GuestFigures };

/** What Stats answers, by the version of cgroups where the container runs. */
export type TaskStats = { cgroup: 'v1'; metrics: MetricsV1 } | { cgroup: 'v2'; metrics: MetricsV2 };

export type TaskStatus = 'UNKNOWN' | 'CREATED' | 'RUNNING' | 'STOPPED' | 'PAUSED' | 'PAUSING';

/**
 * The containers of one shim: its task service of version 2 or 3. Ids are those of berth; an `execId` names
 * a further process. All calls but `wait` have a deadline. They throw BerthError: `notFound` for what the shim
 * does not know, `unavailable` when the shim has died, `internal` with its message.
 */
export class TaskClient {
  readonly #client: TtrpcClient;
  readonly #task: ShimProtos['taskV2'];
  readonly #protos: ShimProtos;

  private constructor(client: TtrpcClient, protos: ShimProtos, version: ShimAddress['version']) {
    this.#client = client;
    this.#protos = protos;
    // Their messages are the same, field by field.
    this.#task = version === 2 ? protos.taskV2 : (protos.taskV3 as unknown as ShimProtos['taskV2']);
  }

  /** @throws BerthError `unavailable` when nobody listens there; `deadline` */
  static async connect({ socket, version }: ShimAddress, protos: ShimProtos): Promise<TaskClient> {
    return new TaskClient(await TtrpcClient.connect(socket, protos, CONNECT_MS), protos, version);
  }

  /** Resolves when the connection has ended: the shim's end, unless it was closed here. */
  get closed(): Promise<void> {
    return this.#client.closed;
  }

  get isClosed(): boolean {
    return this.#client.isClosed;
  }

  /** The shim's own pid. Of all calls the one that does no work, so it also tells whether the shim answers. */
  async shimPid(id: string): Promise<number> {
    return (await this.#client.call(this.#task.Connect, { id }, { timeoutMs: CONNECT_MS })).shim_pid;
  }

  /** Makes a container, whose root file system is mounted and whose command does not run yet. Returns its pid. */
  async create(
    id: string,
    bundle: string,
    stdio: TaskStdio,
    { runcOptions, rootfs = [] }: { runcOptions?: RuncOptions; rootfs?: readonly TaskMount[] } = {},
  ): Promise<number> {
    const options =
      runcOptions === undefined
        ? undefined
        : { type_url: RUNC_OPTIONS_TYPE, value: this.#protos.runcOptions.serialize(runcOptions) };
    const mounts = rootfs.map((mount) => ({ ...mount, options: [...mount.options] }));
    const request = {
      ...{ id, bundle, ...stdio, rootfs: mounts },
      ...(options === undefined ? {} : { options }),
    };
    return (await this.#client.call(this.#task.Create, request, { timeoutMs: CREATE_MS })).pid;
  }

  /** Describes a further process; `process` is an OCI process object as JSON. */
  async exec(id: string, exec_id: string, process: string, stdio: TaskStdio): Promise<void> {
    const spec = { type_url: PROCESS_TYPE, value: Buffer.from(process) };
    await this.#client.call(this.#task.Exec, { id, exec_id, spec, ...stdio }, { timeoutMs: CALL_MS });
  }

  /** Runs a container's command or a further process. Returns its pid. */
  async start(id: string, exec_id = ''): Promise<number> {
    return (await this.#client.call(this.#task.Start, { id, exec_id }, { timeoutMs: CREATE_MS })).pid;
  }

  /** @param all also to all other processes of the container */
  async kill(id: string, signal: number, more: { execId?: string; all?: boolean } = {}): Promise<void> {
    const request = { id, signal, exec_id: more.execId ?? '', all: more.all ?? false };
    await this.#client.call(this.#task.Kill, request, { timeoutMs: CALL_MS });
  }

  /** Answers when the process has ended, and again until it is deleted. */
  async wait(id: string, exec_id = ''): Promise<ProcessEnd> {
    return toEnd(await this.#client.call(this.#task.Wait, { id, exec_id }, {}));
  }

  async state(id: string): Promise<TaskStatus> {
    return (await this.#client.call(this.#task.State, { id }, { timeoutMs: CALL_MS })).status;
  }

  /**
   * The container's processes; those of an Exec with its id, as far as the shim tells it. Pids are those of the host,
   * unless they are a guest's.
   */
  async processes(id: string): Promise<{ pid: number; execId?: string }[]> {
    const { processes } = await this.#client.call(this.#task.Pids, { id }, { timeoutMs: CALL_MS });
    return processes.map(({ pid, info }) => {
      if (!info?.type_url.endsWith(PROCESS_DETAILS_TYPE)) return { pid };
      return { pid, execId: this.#protos.processDetails.deserialize(info.value).exec_id };
    });
  }

  /** A container's use of resources, in the host's or the guest's cgroup. @throws BerthError `internal` for a type unknown here */
  async stats(id: string): Promise<TaskStats> {
    const { stats } = await this.#client.call(this.#task.Stats, { id }, { timeoutMs: CALL_MS });
    const type = stats?.type_url.slice(stats.type_url.lastIndexOf('/') + 1);
    const { cgroupV1, cgroupV2 } = this.#protos;
    if (stats !== null && type === 'io.containerd.cgroups.v1.Metrics')
      return { cgroup: 'v1', metrics: cgroupV1.deserialize(stats.value) };
    if (stats !== null && type === 'io.containerd.cgroups.v2.Metrics')
      return { cgroup: 'v2', metrics: cgroupV2.deserialize(stats.value) };
    throw new BerthError('internal', `the shim answers statistics of the type ${type ?? 'nothing'}`);
  }

  /** A container's figures as its guest tells them. @throws BerthError `unimplemented` of other shims than berth's own */
  async figures(id: string): Promise<GuestFigures> {
    return this.#client.call(this.#protos.guest.Figures, { id }, { timeoutMs: CALL_MS });
  }

  /** Forgets an ended process; one that the shim does not know is done. Returns whether it knew it. */
  async delete(id: string, exec_id = ''): Promise<boolean> {
    try {
      await this.#client.call(this.#task.Delete, { id, exec_id }, { timeoutMs: DELETE_MS });
      return true;
    } catch (e: unknown) {
      if (kindOf(e) !== 'notFound') throw e;
      return false;
    }
  }

  async resizePty(id: string, exec_id: string, size: { width: number; height: number }): Promise<void> {
    await this.#client.call(this.#task.ResizePty, { id, exec_id, ...size }, { timeoutMs: CALL_MS });
  }

  /** The shim closes its own end of a process's stdin: when nobody else has it open, the process reads its end. */
  async closeStdin(id: string, exec_id = ''): Promise<void> {
    await this.#client.call(this.#task.CloseIO, { id, exec_id, stdin: true }, { timeoutMs: CALL_MS });
  }

  /** Sets limits; `resources` is the OCI specification's object as JSON. */
  async update(id: string, resources: string): Promise<void> {
    const request = { id, resources: { type_url: RESOURCES_TYPE, value: Buffer.from(resources) } };
    await this.#client.call(this.#task.Update, request, { timeoutMs: CALL_MS });
  }

  /** Ends the shim, if it has no containers any more. */
  async shutdown(id: string): Promise<void> {
    try {
      await this.#client.call(this.#task.Shutdown, { id, now: false }, { timeoutMs: CALL_MS });
    } catch (e: unknown) {
      // It may end faster than it answers.
      if (kindOf(e) !== 'unavailable') throw e;
    }
  }

  /** Ends the connection; the shim goes on. Repeatable. */
  close(): void {
    this.#client.close();
  }
}

/** The end as an answer of Wait or Delete tells it. */
export function toEnd(answer: { exit_status: number; exited_at: Timestamp__Output | null }): ProcessEnd {
  return { code: answer.exit_status, at: toNanoseconds(answer.exited_at) };
}

function toNanoseconds(time: Timestamp__Output | null): bigint | undefined {
  // Go's zero time is in the year 1.
  if (time === null || BigInt(time.seconds) <= 0n) return undefined;
  return BigInt(time.seconds) * 1_000_000_000n + BigInt(time.nanos);
}
