import { basename } from 'node:path';
import type { ContainerRecord } from '../container/record.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';

/** What the answers are made of. */
export type Described = Pick<Services, 'config' | 'paths' | 'cgroupDriver' | 'sandboxes' | 'containers'>;

/** What cAdvisor's handler of CRI-O reads of the runtime (its `Info`). */
export interface RuntimeAnswer {
  /** No name that cAdvisor knows: it would look for CRI-O's directories. */
  readonly storage_driver: string;
  readonly storage_root: string;
  readonly cgroup_driver: string;
}

/** What it reads of a container (its `ContainerInfo`). */
export interface ContainerAnswer {
  /** The series' label `name`. */
  readonly name: string;
  /** 0 when there is none (yet, or any more). */
  readonly pid: number;
  readonly image: string;
  /** Nanoseconds since the epoch. */
  readonly created_time: bigint;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly log_path: string;
  readonly root: string;
  readonly ip_address: string;
  readonly ip_addresses: readonly string[];
}

/** Labels by which the kubelet finds a container's pod (its package types), whoever made the container. */
const LABEL = 'io.kubernetes';
/** The container that cAdvisor takes the pod's network from. */
const POD = 'POD';

/** `GET /info`. */
export function describeRuntime({ paths, cgroupDriver }: Described): RuntimeAnswer {
  return { storage_driver: 'berth', storage_root: paths.root, cgroup_driver: cgroupDriver };
}

/** `GET /containers/<id>`, of a container or a pause container; undefined when there is none of that id. */
export function describeContainer(s: Described, id: string): ContainerAnswer | undefined {
  const sandbox = s.sandboxes.get(id);
  if (sandbox !== undefined) return ofPause(s, sandbox);
  const container = s.containers.get(id);
  const owner = container && s.sandboxes.get(container.sandboxId);
  return container && owner && ofContainer(s, owner, container);
}

function ofPause(s: Described, sandbox: SandboxRecord): ContainerAnswer {
  return {
    name: sandbox.id,
    pid: sandbox.stoppedAt === undefined ? (sandbox.pause?.pid ?? 0) : 0,
    image: basename(s.config.pause),
    created_time: sandbox.createdAt,
    labels: { ...sandbox.config.labels, ...podLabels(sandbox), [`${LABEL}.container.name`]: POD },
    annotations: sandbox.config.annotations,
    log_path: '',
    root: s.paths.sandbox(sandbox.id).dir,
    ...addresses(sandbox),
  };
}

function ofContainer(s: Described, sandbox: SandboxRecord, container: ContainerRecord): ContainerAnswer {
  const { id, config, createdAt, exit, init, logPath } = container;
  return {
    name: id,
    pid: exit === undefined ? (init?.pid ?? 0) : 0,
    image: config.image.userSpecifiedImage || config.image.image,
    created_time: createdAt,
    labels: { ...podLabels(sandbox), [`${LABEL}.container.name`]: config.metadata.name, ...config.labels },
    annotations: config.annotations,
    log_path: logPath,
    root: s.paths.container(id).upper,
    ...addresses(sandbox),
  };
}

function podLabels({ config: { metadata } }: SandboxRecord): Record<string, string> {
  return {
    [`${LABEL}.pod.name`]: metadata.name,
    [`${LABEL}.pod.namespace`]: metadata.namespace,
    [`${LABEL}.pod.uid`]: metadata.uid,
  };
}

function addresses({ ips }: SandboxRecord): Pick<ContainerAnswer, 'ip_address' | 'ip_addresses'> {
  return { ip_address: ips[0] ?? '', ip_addresses: ips };
}
