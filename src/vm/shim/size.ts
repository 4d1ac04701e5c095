import { type JsonObject, objectOf } from './oci.ts';
import type { VmSettings } from './settings.ts';

const MIB = 1024n * 1024n;
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

/**
 * The size of a pod's machine: what the guest's kernel and agent take, and the pod's limits on top; a pod without
 * limits gets the default.
 */
export function machineSize(
  { memory: limit, quota, period }: SandboxLimits,
  settings: VmSettings,
): MachineSize {
  const memory = BigInt(settings.memory) * MIB + (limit === undefined ? 0n : roundUp(limit, MIB));
  const maxMemory = BigInt(settings.max_memory) * MIB;
  const wanted =
    quota === undefined || period === undefined ? settings.vcpus : Number(roundUp(quota, period) / period);
  const vcpus = Math.min(Math.max(wanted, 1), settings.max_vcpus);
  const memoryBytes = memory > maxMemory ? maxMemory : memory;
  return { vcpus, maxVcpus: settings.max_vcpus, memoryBytes, maxMemoryBytes: maxMemory };
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
