import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { credentials, Client as GrpcClient, Metadata } from '@grpc/grpc-js';
import type { MethodDefinition } from '@grpc/proto-loader';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { ContainerStatus__Output } from '../../proto/gen/runtime/v1/ContainerStatus.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import type { PodSandboxStatus__Output } from '../../proto/gen/runtime/v1/PodSandboxStatus.ts';
import { loadProtos, type Protos } from '../../proto/load.ts';
import { BerthError, type ErrorKind, isErrno } from '../../src/errors.ts';
import type { Berthd } from './berthd.ts';
import { BUSYBOX } from './busybox.ts';

/** A pod that runs, and the configuration that CreateContainer repeats. */
export interface Pod {
  id: string;
  config: PodSandboxConfig;
}

/** What a command in a container said, as text, and its code. */
export interface Said {
  code: number;
  stdout: string;
  stderr: string;
}

/** One line of a log in CRI's format. */
export interface LogLine {
  time: string;
  stream: string;
  /** `F` for a whole line, `P` for a part that goes on in the next one. */
  tag: string;
  /** One character for each byte: an end may lie within a UTF-8 sequence. */
  text: string;
}

/** A container that does nothing until it is killed; as PID 1 it takes no notice of SIGTERM. */
export const IDLE: ContainerConfig = { command: ['sleep', '100000'] };

/** A container that runs a shell script. */
export function sh(script: string, more: ContainerConfig = {}): ContainerConfig {
  return { command: ['sh', '-c', script], ...more };
}

/** The pod's namespaces but a PID namespace for each container, as the kubelet asks by default. */
export const OWN_PID: LinuxContainerSecurityContext = { namespace_options: { pid: 'CONTAINER' } };

/** One PID namespace for all containers of the pod, which has a pause process for that. */
export const SHARED_PID: LinuxContainerSecurityContext = { namespace_options: { pid: 'POD' } };

/** A berthd that answers calls, wherever it runs. */
export type Callee = Pick<Berthd, 'client' | 'dir' | 'cgroupParent'>;

/** Pods and containers of one berthd by the calls that the kubelet makes. */
export class Pods {
  readonly #berthd: Callee;

  constructor(berthd: Callee) {
    this.#berthd = berthd;
  }

  /**
   * A pod's configuration with a name of its own, a log directory and the test's cgroup; without
   * `security_context`, its containers have PID namespaces of their own, so that it has no pause process.
   */
  config(more: PodSandboxConfig = {}): PodSandboxConfig {
    const name = `pod-${randomBytes(4).toString('hex')}`;
    return {
      metadata: { name, namespace: 'default', uid: `uid-${name}`, attempt: 0 },
      hostname: name,
      log_directory: path.join(this.#berthd.dir, 'logs', name),
      ...more,
      linux: { cgroup_parent: this.#berthd.cgroupParent, security_context: OWN_PID, ...more.linux },
    };
  }

  async run(more: PodSandboxConfig = {}, handler = ''): Promise<Pod> {
    const config = this.config(more);
    const request = { config, runtime_handler: handler };
    const { pod_sandbox_id: id } = await this.#berthd.client.runtime('RunPodSandbox', request);
    return { id, config };
  }

  /** Creates a container of the busybox image. */
  async create(pod: Pod, more: ContainerConfig = IDLE): Promise<string> {
    const config = containerConfig(more);
    const request = { pod_sandbox_id: pod.id, config, sandbox_config: pod.config };
    return (await this.#berthd.client.runtime('CreateContainer', request)).container_id;
  }

  /** Creates and starts. */
  async start(pod: Pod, more: ContainerConfig = IDLE): Promise<string> {
    const container_id = await this.create(pod, more);
    await this.#berthd.client.runtime('StartContainer', { container_id });
    return container_id;
  }

  /** Runs a container to its end. */
  async runToEnd(
    pod: Pod,
    more: ContainerConfig,
  ): Promise<ContainerStatus__Output & { log: string; id: string }> {
    const status = await this.ended(await this.start(pod, more));
    const lines = await this.log(status.log_path);
    const log = lines.map(({ text, tag }) => (tag === 'F' ? `${text}\n` : text)).join('');
    return { ...status, log: Buffer.from(log, 'latin1').toString() };
  }

  async status(container_id: string): Promise<ContainerStatus__Output> {
    const { status } = await this.#berthd.client.runtime('ContainerStatus', { container_id });
    if (status === null) throw new Error('no status');
    return status;
  }

  async podStatus(pod: Pod | string): Promise<PodSandboxStatus__Output> {
    const pod_sandbox_id = typeof pod === 'string' ? pod : pod.id;
    const { status } = await this.#berthd.client.runtime('PodSandboxStatus', { pod_sandbox_id });
    if (status === null) throw new Error('no status');
    return status;
  }

  /** What the daemon tells of an object beyond CRI: pids and paths. */
  async info(kind: 'pod' | 'container', id: string): Promise<Record<string, unknown>> {
    const { client } = this.#berthd;
    const { info } =
      kind === 'pod'
        ? await client.runtime('PodSandboxStatus', { pod_sandbox_id: id, verbose: true })
        : await client.runtime('ContainerStatus', { container_id: id, verbose: true });
    return JSON.parse(info.info ?? '{}') as Record<string, unknown>;
  }

  /** Host's pid of a sandbox's pause process, if it has one, or of a container's first one. */
  async pid(kind: 'pod' | 'container', id: string): Promise<number> {
    return Number((await this.info(kind, id)).pid);
  }

  /** Waits until a container has ended. */
  ended(id: string): Promise<ContainerStatus__Output> {
    return until(`container ${id} has ended`, async () => {
      const status = await this.status(id);
      return status.state === 'CONTAINER_EXITED' ? status : undefined;
    });
  }

  async exec(container_id: string, cmd: string[], timeout = 60): Promise<Said> {
    const { exit_code, stdout, stderr } = await this.#berthd.client.runtime('ExecSync', {
      container_id,
      cmd,
      timeout,
    });
    return { code: exit_code, stdout: stdout.toString(), stderr: stderr.toString() };
  }

  /** stdout of a shell script in a container, which must succeed, without the last newline. */
  async ask(container_id: string, script: string): Promise<string> {
    const said = await this.exec(container_id, ['sh', '-c', script]);
    if (said.code !== 0) throw new Error(`${script}: ${said.code}: ${said.stderr}`);
    return said.stdout.replace(/\n$/, '');
  }

  stop(container_id: string, timeout = 0): Promise<unknown> {
    return this.#berthd.client.runtime('StopContainer', { container_id, timeout });
  }

  removeContainer(container_id: string): Promise<unknown> {
    return this.#berthd.client.runtime('RemoveContainer', { container_id });
  }

  stopPod(pod: Pod): Promise<unknown> {
    return this.#berthd.client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id });
  }

  removePod(pod: Pod): Promise<unknown> {
    return this.#berthd.client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id });
  }

  /** All pods and containers with their statuses and network, in one order, to be compared. */
  async everything() {
    const { client } = this.#berthd;
    const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1);
    const { items } = await client.runtime('ListPodSandbox', {});
    const { containers } = await client.runtime('ListContainers', {});
    return {
      pods: items.sort(byId),
      podStatuses: await Promise.all(items.map(({ id }) => this.podStatus(id))),
      containers: containers.sort(byId),
      statuses: await Promise.all(containers.map(({ id }) => this.status(id))),
    };
  }

  /** The lines of a log file. */
  async log(file: string): Promise<LogLine[]> {
    return parseLog(await readFile(file));
  }
}

/** Imports an archive of images. */
export async function importArchive({ client }: Pick<Callee, 'client'>, archive: Buffer): Promise<void> {
  await client.importImage(
    (async function* () {
      for (let at = 0; at < archive.length; at += 1 << 20)
        yield { chunk: archive.subarray(at, at + (1 << 20)) };
    })(),
  );
}

/** Whether a process runs: it is there, and no zombie that the machine's init has still to reap. */
export function runs(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ESRCH')) return false;
    throw e;
  }
}

/** A container's configuration with a name of its own, a log and, unless it says otherwise, {@link OWN_PID}. */
export function containerConfig(more: ContainerConfig = IDLE): ContainerConfig {
  const name = `c-${randomBytes(4).toString('hex')}`;
  return {
    metadata: { name, attempt: 0 },
    image: { image: BUSYBOX },
    log_path: `${name}.log`,
    ...more,
    linux: { ...more.linux, security_context: { ...OWN_PID, ...more.linux?.security_context } },
  };
}

/** Mounts of every kind, of a directory and of an image, as CRI tells them: with all members. */
export function mountsOfEveryKind(host_path: string) {
  const plain = {
    readonly: false,
    recursive_read_only: false,
    selinux_relabel: false,
    propagation: 'PROPAGATION_PRIVATE' as const,
    uidMappings: [],
    gidMappings: [],
    image: null,
    image_sub_path: '',
  };
  const image = {
    image: BUSYBOX,
    user_specified_image: 'busybox:as-the-user-wrote-it',
    annotations: { 'for/image': 'ü' },
    runtime_handler: '',
    image_ref: '',
  };
  return [
    { ...plain, container_path: '/plain', host_path },
    { ...plain, container_path: '/ro', host_path, readonly: true, recursive_read_only: true },
    {
      ...plain,
      container_path: '/slave',
      host_path,
      propagation: 'PROPAGATION_HOST_TO_CONTAINER' as const,
    },
    { ...plain, container_path: '/image', host_path: '', readonly: true, image, image_sub_path: 'etc' },
  ];
}

/** @throws Error at the first line that is not in CRI's format. */
export function parseLog(file: Buffer): LogLine[] {
  const text = file.toString('latin1');
  if (text === '') return [];
  if (!text.endsWith('\n')) throw new Error('the last line of the log has no end');
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => {
      const match = /^(\S+) (stdout|stderr) ([PF]) (.*)$/s.exec(line);
      if (match === null) throw new Error(`no line of a CRI log: ${JSON.stringify(line.slice(0, 200))}`);
      const [, time = '', stream = '', tag = '', said = ''] = match;
      return { time, stream, tag, text: said };
    });
}

/** Polls until `look` gives something other than undefined or false. @throws Error when `timeoutMs` are over */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 45_000,
): Promise<T> {
  for (const since = Date.now(); ; await delay(10)) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() - since > timeoutMs) throw new Error(`waited in vain: ${what}`);
  }
}

/** How a call was refused. @throws Error when it was not */
export async function refusal(call: Promise<unknown>): Promise<{ kind: ErrorKind; message: string }> {
  const e = await call.then(
    (answer) => new Error(`not refused but answered: ${JSON.stringify(answer)?.slice(0, 500)}`),
    (e: unknown) => e,
  );
  if (!(e instanceof BerthError)) throw e;
  return { kind: e.kind, message: e.message };
}

/** Any method of either CRI service by its name, streaming ones too: all messages that came, or the error. */
export async function callRaw(berthd: Berthd, name: string, request: object): Promise<unknown[]> {
  const protos = loadProtos();
  const method = methodNamed(protos, name);
  const client = new GrpcClient(
    `unix:${berthd.endpoint.slice('unix://'.length)}`,
    credentials.createInsecure(),
    {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
    },
  );
  const { path: rpc, requestSerialize, responseDeserialize } = method;
  try {
    if (!method.responseStream) {
      return await new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          rpc,
          requestSerialize,
          responseDeserialize,
          request,
          new Metadata(),
          { deadline: Date.now() + 60_000 },
          (e, answer) => (e === null ? resolve([answer]) : reject(e)),
        );
      });
    }
    const messages: unknown[] = [];
    const call = client.makeServerStreamRequest(
      rpc,
      requestSerialize,
      responseDeserialize,
      request,
      new Metadata(),
      {
        deadline: Date.now() + 60_000,
      },
    );
    for await (const message of call) messages.push(message);
    return messages;
  } finally {
    client.close();
  }
}

function methodNamed(
  { runtimeService, imageService }: Protos,
  name: string,
): MethodDefinition<object, object> {
  const all = { ...runtimeService, ...imageService } as unknown as Record<
    string,
    MethodDefinition<object, object>
  >;
  const method = all[name];
  if (method === undefined) throw new Error(`CRI has no ${name}`);
  return method;
}
