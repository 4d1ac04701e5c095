import { invalid } from '../../errors.ts';
import { parseBytes, parseMilliCpu } from './quantity.ts';
import type { Pod, PodContainer, ResourceRequirements } from './schema.ts';

/** CPU in thousandths and memory in bytes; absent when the pod does not say. */
interface Amounts {
  milliCpu?: bigint;
  memory?: bigint;
}

/** Requests and limits of a container or pod, after Kubernetes' defaulting (a request is its limit). */
export interface ComputeResources {
  requests: Amounts;
  limits: Amounts;
  /** Bytes by page size as the kernel's hugetlb files spell it (`2MB`). */
  hugepages: { pageSize: string; limit: bigint }[];
}

/** Values of `LinuxContainerResources`; int64 as decimal text, so that nothing is rounded. */
export interface LinuxResources {
  cpu_shares: string;
  cpu_quota: string;
  cpu_period: string;
  memory_limit_in_bytes: string;
  oom_score_adj: string;
  hugepage_limits: { page_size: string; limit: string }[];
}

const CPU_PERIOD_US = 100_000n;
/** The kernel refuses a CFS quota below 1 ms. */
const MIN_QUOTA_US = 1_000n;
/** Range of the kernel's cpu.shares. */
const MIN_SHARES = 2n;
const MAX_SHARES = 262_144n;

/**
 * @param field path of the requirements, for errors
 * @param warn told of resources that berth cannot hold a container to
 * @throws BerthError invalid
 */
export function readResources(
  requirements: ResourceRequirements | null | undefined,
  field: string,
  warn: (text: string) => void,
): ComputeResources {
  const hugepages: ComputeResources['hugepages'] = [];
  const read = (kind: 'limits' | 'requests'): Amounts => {
    const amounts: Amounts = {};
    for (const [name, value] of Object.entries(requirements?.[kind] ?? {})) {
      const at = `${field}.${kind}.${name}`;
      if (name === 'cpu') amounts.milliCpu = parseMilliCpu(value, at);
      else if (name === 'memory') amounts.memory = parseBytes(value, at);
      else if (name.startsWith('hugepages-')) {
        const limit = parseBytes(value, at);
        if (kind === 'limits') hugepages.push({ pageSize: pageSizeName(name, at), limit });
      } else warn(`${at} has no effect: berth limits cpu, memory and hugepages only`);
    }
    return amounts;
  };
  const limits = read('limits');
  const requests = { ...limits, ...read('requests') };
  for (const name of ['milliCpu', 'memory'] as const) {
    const [request, limit] = [requests[name], limits[name]];
    if (request !== undefined && limit !== undefined && request > limit) {
      throw invalid(`${field}.requests.${name === 'memory' ? name : 'cpu'}`, 'must not exceed the limit');
    }
  }
  return { requests, limits, hugepages };
}

function pageSizeName(resource: string, field: string): string {
  const bytes = parseBytes(resource.slice('hugepages-'.length), field);
  const units: [bigint, string][] = [
    [1n << 30n, 'GB'],
    [1n << 20n, 'MB'],
    [1n << 10n, 'KB'],
  ];
  const unit = units.find(([size]) => bytes >= size && bytes % size === 0n);
  if (unit === undefined) throw invalid(field, 'must name a page size such as hugepages-2Mi');
  return `${bytes / unit[0]}${unit[1]}`;
}

/** What a container with these resources is given by the kernel. */
export function toLinuxResources(resources: ComputeResources, oomScoreAdj: bigint): LinuxResources {
  const cpuLimit = resources.limits.milliCpu ?? 0n;
  return {
    cpu_shares: String(shares(resources.requests.milliCpu ?? 0n)),
    cpu_quota: String(cpuLimit === 0n ? 0n : max((cpuLimit * CPU_PERIOD_US) / 1000n, MIN_QUOTA_US)),
    cpu_period: String(CPU_PERIOD_US),
    memory_limit_in_bytes: String(resources.limits.memory ?? 0n),
    oom_score_adj: String(oomScoreAdj),
    hugepage_limits: resources.hugepages.map(({ pageSize, limit }) => ({
      page_size: pageSize,
      limit: String(limit),
    })),
  };
}

function shares(milliCpu: bigint): bigint {
  const value = (milliCpu * 1024n) / 1000n;
  return value < MIN_SHARES ? MIN_SHARES : value > MAX_SHARES ? MAX_SHARES : value;
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/** All of a pod's resources: those of the pod, and those of each container by name. */
export interface PodResources {
  pod: ComputeResources;
  containers: ReadonlyMap<string, ComputeResources>;
}

/**
 * The pod's resources are those it states itself, else the sum over its containers, or the largest init
 * container where that is more. A limit exists only when every container has one.
 *
 * @throws BerthError invalid
 */
export function readPodResources(pod: Pod, warn: (text: string) => void): PodResources {
  const read = (list: PodContainer[], name: string): [PodContainer, ComputeResources][] =>
    list.map((c, at) => [c, readResources(c.resources, `spec.${name}[${at}].resources`, warn)]);
  const inits = read(pod.spec.initContainers ?? [], 'initContainers');
  const mains = read(pod.spec.containers, 'containers');
  const stated = readResources(pod.spec.resources, 'spec.resources', warn);
  const sidecars = inits.filter(([c]) => isSidecar(c));
  const together = [...mains, ...sidecars].map(([, r]) => r);
  const alone = inits.filter(([c]) => !isSidecar(c)).map(([, r]) => r);
  const total = (kind: 'requests' | 'limits', name: keyof Amounts): bigint | undefined => {
    const own = stated[kind][name];
    if (own !== undefined) return own;
    const values = together.map((r) => r[kind][name]);
    if (kind === 'limits' && values.includes(undefined)) return undefined;
    const sum = values.reduce<bigint>((a, b) => a + (b ?? 0n), 0n);
    return alone.reduce((a, r) => max(a, r[kind][name] ?? 0n), sum);
  };
  const amounts = (kind: 'requests' | 'limits'): Amounts => {
    const [milliCpu, memory] = [total(kind, 'milliCpu'), total(kind, 'memory')];
    return { ...(milliCpu !== undefined && { milliCpu }), ...(memory !== undefined && { memory }) };
  };
  return {
    pod: { requests: amounts('requests'), limits: amounts('limits'), hugepages: stated.hugepages },
    containers: new Map([...inits, ...mains].map(([c, r]) => [c.name, r])),
  };
}

/** An init container that keeps running beside the main ones (Kubernetes' native sidecar). */
export function isSidecar(container: PodContainer): boolean {
  return container.restartPolicy === 'Always';
}

/**
 * The kubelet's oom_score_adj by quality-of-service class: Guaranteed -997, BestEffort 1000, Burstable
 * the less the more of the node's memory the container requests, within 3 … 999.
 *
 * @param memoryCapacity the node's memory in bytes
 */
export function oomScoreAdj(resources: PodResources, name: string, memoryCapacity: bigint): bigint {
  const all = [...resources.containers.values()];
  const amounts = all.flatMap((r) => [...Object.values(r.requests), ...Object.values(r.limits)]);
  if (amounts.every((amount) => amount === 0n)) return 1000n;
  const guaranteed = all.every((r) =>
    (['milliCpu', 'memory'] as const).every(
      (key) => (r.limits[key] ?? 0n) > 0n && r.limits[key] === r.requests[key],
    ),
  );
  if (guaranteed) return -997n;
  const request = resources.containers.get(name)?.requests.memory ?? 0n;
  const score = 1000n - (1000n * request) / memoryCapacity;
  return score < 3n ? 3n : score > 999n ? 999n : score;
}
