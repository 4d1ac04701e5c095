import { type HugepageLimit, type Resources, unifiedFiles } from '../../cgroups/index.ts';
import { invalid } from '../errors.ts';
import type { HostFacts } from './host.ts';
import type { DeviceRule, LinuxResources } from './types.ts';

const UNLIMITED = -1n;

/**
 * The limits of a container in the specification's terms; 0 and absent both mean "not set", as in CRI.
 *
 * - Without a swap limit of its own a container with a memory limit gets the same one for memory plus
 *   swap, that is no swap: what the kubelet accounts for is memory alone.
 * - Limits that the kernel cannot keep (swap, huge pages without their controller) are left out: the
 *   kubelet sends one for every page size of the node, asked for or not.
 * - Without a limit of its own the number of tasks is unlimited in so many words: systemd would otherwise
 *   give every scope its DefaultTasksMax, 15 % of what the node can run.
 * - On v2 what OCI runtimes convert differently is also said in the kernel's own terms, which win.
 */
export function specResources(
  r: Resources,
  devices: DeviceRule[],
  host: Pick<HostFacts, 'unifiedCgroups' | 'swapAccounting' | 'hugetlb'>,
): LinuxResources {
  if (Object.keys(r.unified ?? {}).length > 0 && !host.unifiedCgroups) {
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
  const unified = host.unifiedCgroups
    ? {
        ...unifiedFiles({
          cpuShares: cpu.shares,
          memoryLimitBytes: memory.limit,
          memorySwapLimitBytes: memory.swap,
        }),
        ...r.unified,
      }
    : {};
  const huge = host.hugetlb ? (r.hugepageLimits ?? []) : [];
  return {
    devices,
    ...(isEmpty(cpu) ? {} : { cpu }),
    ...(isEmpty(memory) ? {} : { memory }),
    pids: { limit: r.pidsLimit || UNLIMITED },
    ...(huge.length > 0 ? { hugepageLimits: huge.map(hugepage) } : {}),
    ...(isEmpty(unified) ? {} : { unified }),
  };
}

/** Only the limits that are given, to change them in a running container. */
export function changedResources(r: Resources): Partial<LinuxResources> {
  const host = { unifiedCgroups: false, swapAccounting: true, hugetlb: true };
  const { devices, pids, ...given } = specResources({ ...r, unified: undefined }, [], host);
  return { ...given, ...(r.pidsLimit === undefined ? {} : { pids }) };
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
