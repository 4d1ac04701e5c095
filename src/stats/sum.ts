import type { CgroupUsage, MemoryStats } from '../../cgroups/types.ts';

/**
 * What several cgroups use together, for a pod that has no cgroup of its own. A figure that one of them
 * lacks is unknown for all; limits and pressure cannot be added.
 */
export function sumUsage(parts: readonly CgroupUsage[]): CgroupUsage | undefined {
  const [first] = parts;
  if (first === undefined) return undefined;
  const memory = (key: keyof MemoryStats) => sum(parts.map((part) => part.memory[key]));
  return {
    timestampNs: first.timestampNs,
    cpu: { usageNs: sum(parts.map(({ cpu }) => cpu.usageNs)) },
    memory: {
      usageBytes: memory('usageBytes'),
      limitBytes: undefined,
      workingSetBytes: memory('workingSetBytes'),
      rssBytes: memory('rssBytes'),
      cacheBytes: memory('cacheBytes'),
      availableBytes: undefined,
      pageFaults: memory('pageFaults'),
      majorPageFaults: memory('majorPageFaults'),
      swapUsageBytes: memory('swapUsageBytes'),
      swapLimitBytes: undefined,
    },
    psi: undefined,
  };
}

/** The use of a pod in which nothing runs. */
export function nothingUsed(timestampNs: bigint): CgroupUsage {
  return {
    timestampNs,
    cpu: { usageNs: 0n },
    memory: {
      usageBytes: 0n,
      limitBytes: undefined,
      workingSetBytes: 0n,
      rssBytes: 0n,
      cacheBytes: 0n,
      availableBytes: undefined,
      pageFaults: 0n,
      majorPageFaults: 0n,
      swapUsageBytes: 0n,
      swapLimitBytes: undefined,
    },
    psi: undefined,
  };
}

/** Undefined when one of them is, or when there are none. */
export function sum(values: readonly (bigint | undefined)[]): bigint | undefined {
  if (values.length === 0) return undefined;
  let total = 0n;
  for (const value of values) {
    if (value === undefined) return undefined;
    total += value;
  }
  return total;
}
