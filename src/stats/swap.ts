import { readFileSync } from 'node:fs';
import type { MemoryStats } from '../../cgroups/types.ts';

/** All swap of the node, bytes; undefined when /proc/meminfo (proc_meminfo(5)) does not tell. */
export function nodeSwapBytes(): bigint | undefined {
  const kib = /^SwapTotal:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return kib === undefined ? undefined : BigInt(kib) * 1024n;
}

/**
 * How much swap a cgroup may still use: up to its limit, and no more than the node has. Undefined where the
 * kernel does not account swap.
 */
export function swapAvailableBytes(
  { swapUsageBytes, swapLimitBytes }: Pick<MemoryStats, 'swapUsageBytes' | 'swapLimitBytes'>,
  nodeSwap: bigint | undefined,
): bigint | undefined {
  if (swapUsageBytes === undefined) return undefined;
  const limits = [swapLimitBytes, nodeSwap].filter((limit) => limit !== undefined);
  if (limits.length === 0) return undefined;
  const limit = limits.reduce((a, b) => (a < b ? a : b));
  return limit > swapUsageBytes ? limit - swapUsageBytes : 0n;
}
