import type { JsonObject } from './oci.ts';
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

/**
 * The size of a pod's machine: what the guest's kernel and agent take, and the pod's limits on top; a pod without
 * limits gets the default.
 *
 * The sums of the containers' limits come as annotations, as kata and containerd agreed on.
 */
export function machineSize(annotations: JsonObject, settings: VmSettings): MachineSize {
  const limit = numberOf(annotations, 'memory');
  const memory = BigInt(settings.memory) * MIB + (limit === undefined ? 0n : roundUp(limit, MIB));
  const maxMemory = BigInt(settings.max_memory) * MIB;
  const quota = numberOf(annotations, 'cpu-quota');
  const period = numberOf(annotations, 'cpu-period');
  const wanted =
    quota === undefined || period === undefined ? settings.vcpus : Number(roundUp(quota, period) / period);
  const vcpus = Math.min(Math.max(wanted, 1), settings.max_vcpus);
  const memoryBytes = memory > maxMemory ? maxMemory : memory;
  return { vcpus, maxVcpus: settings.max_vcpus, memoryBytes, maxMemoryBytes: maxMemory };
}

/** Zero and less mean no limit. */
function numberOf(annotations: JsonObject, name: string): bigint | undefined {
  const text = annotations[PREFIX + name];
  if (typeof text !== 'string' || !/^\d{1,19}$/.test(text)) return undefined;
  const value = BigInt(text);
  return value > 0n ? value : undefined;
}

function roundUp(value: bigint, unit: bigint): bigint {
  return ((value + unit - 1n) / unit) * unit;
}
