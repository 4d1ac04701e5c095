import type { Resources } from '../../cgroups/types.ts';
import type {
  LinuxContainerResources,
  LinuxContainerResources__Output,
} from '../../proto/gen/runtime/v1/LinuxContainerResources.ts';

/** CRI's 0 and empty text mean "not given". */
export function fromResources(r: LinuxContainerResources__Output | null): Resources {
  if (r === null) return {};
  const unified = Object.keys(r.unified).length > 0 ? r.unified : undefined;
  return {
    ...given('cpuPeriod', int(r.cpu_period)),
    ...given('cpuQuota', int(r.cpu_quota)),
    ...given('cpuShares', int(r.cpu_shares)),
    ...given('memoryLimitBytes', int(r.memory_limit_in_bytes)),
    ...given('memorySwapLimitBytes', int(r.memory_swap_limit_in_bytes)),
    ...given('cpusetCpus', r.cpuset_cpus || undefined),
    ...given('cpusetMems', r.cpuset_mems || undefined),
    ...given('unified', unified),
    ...(r.hugepage_limits.length > 0
      ? {
          hugepageLimits: r.hugepage_limits.map((h) => ({
            pageSize: h.page_size,
            limitBytes: BigInt(h.limit),
          })),
        }
      : {}),
  };
}

/** The caller's own numbers, as they came. */
export function toResources(r: Resources, oomScoreAdj: bigint): LinuxContainerResources {
  return {
    cpu_period: String(r.cpuPeriod ?? 0n),
    cpu_quota: String(r.cpuQuota ?? 0n),
    cpu_shares: String(r.cpuShares ?? 0n),
    memory_limit_in_bytes: String(r.memoryLimitBytes ?? 0n),
    memory_swap_limit_in_bytes: String(r.memorySwapLimitBytes ?? 0n),
    oom_score_adj: String(oomScoreAdj),
    cpuset_cpus: r.cpusetCpus ?? '',
    cpuset_mems: r.cpusetMems ?? '',
    unified: { ...r.unified },
    hugepage_limits: (r.hugepageLimits ?? []).map((h) => ({
      page_size: h.pageSize,
      limit: String(h.limitBytes),
    })),
  };
}

function int(text: string): bigint | undefined {
  const value = BigInt(text);
  return value === 0n ? undefined : value;
}

function given<K extends string, V>(key: K, value: V | undefined): { [k in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [k in K]: V });
}
