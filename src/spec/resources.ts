import type { HugepageLimit, Resources } from '../../cgroups/types.ts';
import { invalid } from '../errors.ts';
import type { HostFacts } from './host.ts';
import type { DeviceRule, LinuxResources } from './types.ts';

/**
 * The limits of a container in the specification's terms; 0 and absent both mean "not set", as in CRI.
 *
 * - Without a swap limit of its own a container with a memory limit gets the same one for memory plus
 *   swap, that is no swap: what the kubelet accounts for is memory alone.
 * - Limits that the kernel cannot keep (swap, huge pages without their controller) are left out: the
 *   kubelet sends one for every page size of the node, asked for or not.
 */
export function specResources(
  r: Resources,
  devices: DeviceRule[],
  host: Pick<HostFacts, 'unifiedCgroups' | 'swapAccounting' | 'hugetlb'>,
): LinuxResources {
  const unified = r.unified ?? {};
  if (Object.keys(unified).length > 0 && !host.unifiedCgroups) {
    throw invalid('config.linux.resources.unified', 'names files of cgroup v2, but this host has v1');
  }
  const cpu = {
    ...set('shares', r.cpuShares),
    ...set('quota', r.cpuQuota),
    ...set('period', r.cpuPeriod),
    ...(r.cpusetCpus ? { cpus: r.cpusetCpus } : {}),
    ...(r.cpusetMems ? { mems: r.cpusetMems } : {}),
  };
  const swap = r.memorySwapLimitBytes || r.memoryLimitBytes;
  const memory = {
    ...set('limit', r.memoryLimitBytes),
    ...(host.swapAccounting ? set('swap', swap) : {}),
  };
  const huge = host.hugetlb ? (r.hugepageLimits ?? []) : [];
  return {
    devices,
    ...(isEmpty(cpu) ? {} : { cpu }),
    ...(isEmpty(memory) ? {} : { memory }),
    ...(r.pidsLimit ? { pids: { limit: r.pidsLimit } } : {}),
    ...(huge.length > 0 ? { hugepageLimits: huge.map(hugepage) } : {}),
    ...(isEmpty(unified) ? {} : { unified: { ...unified } }),
  };
}

function set<K extends string>(key: K, value: bigint | undefined): Partial<Record<K, bigint>> {
  return value ? ({ [key]: value } as Record<K, bigint>) : {};
}

function hugepage(l: HugepageLimit): { pageSize: string; limit: bigint } {
  return { pageSize: l.pageSize, limit: l.limitBytes };
}

function isEmpty(o: object): boolean {
  return Object.keys(o).length === 0;
}
