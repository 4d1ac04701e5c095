import { cpus, totalmem } from 'node:os';
import { type JsonObject, objectOf } from './oci.ts';
import type { VmSettings } from './settings.ts';

const MIB = 1024n * 1024n;
/**
 * How far a machine can grow: this much, or so many times its first size. Room that is not used costs the guest nothing,
 * but QEMU 96 KiB for each GiB (three bits a page, by which it knows what was written).
 */
const ROOM = 16n * 1024n * MIB;
const GROWTH = 4n;
const PREFIX = 'io.kubernetes.cri.sandbox-';

/** How large a machine is. */
export interface MachineSize {
  vcpus: number;
  maxVcpus: number;
  /** Whole MiB. */
  memoryBytes: bigint;
  maxMemoryBytes: bigint;
}

/** The sums of the limits of a pod's containers; what is absent is not limited. */
export interface SandboxLimits {
  memory?: bigint;
  /** Microseconds. */
  quota?: bigint;
  period?: bigint;
}

/** What a node has, which no machine on it can have more of. */
export interface NodeSize {
  cpus: number;
  memoryBytes: bigint;
}

/** @returns this node's */
export function nodeSize(): NodeSize {
  return { cpus: cpus().length, memoryBytes: BigInt(totalmem()) };
}

/** The size of a pod's machine: what the guest's kernel and agent take, and the pod's limits or the default on top. Pure. */
export function machineSize(
  { memory: limit, quota, period }: SandboxLimits,
  settings: Pick<VmSettings, 'memory' | 'default_memory' | 'max_memory' | 'vcpus' | 'max_vcpus'>,
  node: NodeSize,
): MachineSize {
  const forContainers = limit === undefined ? BigInt(settings.default_memory) * MIB : roundUp(limit, MIB);
  const wanted = BigInt(settings.memory) * MIB + forContainers;
  const configured = BigInt(settings.max_memory) * MIB;
  const nodes = (node.memoryBytes / MIB) * MIB;
  const most = configured > 0n && configured < nodes ? configured : nodes;
  const memoryBytes = wanted < most ? wanted : most;
  const room = memoryBytes * GROWTH > ROOM ? memoryBytes * GROWTH : ROOM;
  const maxVcpus = Math.max(Math.min(settings.max_vcpus, node.cpus), 1);
  const cpus =
    quota === undefined || period === undefined ? settings.vcpus : Number(roundUp(quota, period) / period);
  return {
    vcpus: Math.min(Math.max(cpus, 1), maxVcpus),
    maxVcpus,
    memoryBytes,
    maxMemoryBytes: room < most ? room : most,
  };
}

/** The sums as they come with a sandbox: annotations, as kata and containerd agreed on. */
export function annotatedLimits(annotations: JsonObject): SandboxLimits {
  return limits(
    annotations[`${PREFIX}memory`],
    annotations[`${PREFIX}cpu-quota`],
    annotations[`${PREFIX}cpu-period`],
  );
}

/** The sums as an update brings them: the OCI specification's resources. */
export function updatedLimits(resources: unknown): SandboxLimits {
  const { memory, cpu } = objectOf(resources, 'resources');
  const { quota, period } = objectOf(cpu ?? {}, 'resources.cpu');
  return limits(objectOf(memory ?? {}, 'resources.memory').limit, quota, period);
}

function limits(memory: unknown, quota: unknown, period: unknown): SandboxLimits {
  const given = { memory: positive(memory), quota: positive(quota), period: positive(period) };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Zero and less mean no limit. */
function positive(value: unknown): bigint | undefined {
  const text = String(value);
  return /^[1-9]\d{0,18}$/.test(text) ? BigInt(text) : undefined;
}

function roundUp(value: bigint, unit: bigint): bigint {
  return ((value + unit - 1n) / unit) * unit;
}
