import { join } from 'node:path';
import { CgroupError, type ReadFile, readOptional, write, writeOptional } from '../io.ts';
import { flatReader, limited, parseMax, parseUint } from '../parse.ts';
import type { MemoryDetails, MemoryStats, Resources } from '../types.ts';

function atLeast0(value: bigint): bigint {
  return value < 0n ? 0n : value;
}

/** Values of memory.stat, the most costly of the files. */
export function readStat(dir: string, read: ReadFile = readOptional): (key: string) => bigint | undefined {
  return flatReader(read(dir, 'memory.stat'));
}

/** @param stat of memory.stat, when the caller has read it */
export function stats(dir: string, read: ReadFile = readOptional, stat = readStat(dir, read)): MemoryStats {
  const usageBytes = parseUint(read(dir, 'memory.current'));
  const limitBytes = limited(parseMax(read(dir, 'memory.max')));
  const inactive = stat('inactive_file');
  const workingSetBytes =
    usageBytes === undefined || inactive === undefined ? undefined : atLeast0(usageBytes - inactive);
  return {
    usageBytes,
    limitBytes,
    workingSetBytes,
    rssBytes: stat('anon'),
    cacheBytes: stat('file'),
    availableBytes:
      limitBytes === undefined || workingSetBytes === undefined
        ? undefined
        : atLeast0(limitBytes - workingSetBytes),
    pageFaults: stat('pgfault'),
    majorPageFaults: stat('pgmajfault'),
    swapUsageBytes: parseUint(read(dir, 'memory.swap.current')),
    swapLimitBytes: limited(parseMax(read(dir, 'memory.swap.max'))),
  };
}

export function details(
  dir: string,
  read: ReadFile = readOptional,
  stat = readStat(dir, read),
  readLimit = read,
): MemoryDetails {
  const low = parseMax(readLimit(dir, 'memory.low'));
  return {
    // Since kernel 5.18.
    kernelBytes: stat('kernel'),
    mappedFileBytes: stat('file_mapped'),
    activeFileBytes: stat('active_file'),
    inactiveFileBytes: stat('inactive_file'),
    // Since kernel 5.19.
    maxUsageBytes: parseUint(read(dir, 'memory.peak')),
    limitHits: flatReader(read(dir, 'memory.events'))('max'),
    reservationBytes: low === 0n ? undefined : limited(low),
    ownPageFaults: undefined,
    ownMajorPageFaults: undefined,
  };
}

/** memory.events counts the whole subtree, and a group kill once for each victim. */
export function oomKills(dir: string, read: ReadFile = readOptional): bigint | undefined {
  return flatReader(read(dir, 'memory.events'))('oom_kill');
}

export function readResources(dir: string): Resources {
  const memory = parseMax(readOptional(dir, 'memory.max'));
  const swap = parseMax(readOptional(dir, 'memory.swap.max'));
  const sum = swap === undefined || memory === undefined ? undefined : swap + memory;
  return {
    memoryLimitBytes: memory,
    memorySwapLimitBytes: swap === -1n || memory === -1n ? -1n : sum,
  };
}

/**
 * Swap alone (v2) from memory plus swap (OCI, CRI); -1n is unlimited.
 * @param memory the memory limit that will hold, undefined when unlimited
 * @throws CgroupError EINVAL when the sum is smaller than memory alone
 */
export function swapOnly(path: string, memory: bigint | undefined, sum: bigint): bigint {
  if (sum < 0n) return -1n;
  if (memory === undefined || memory < 0n) return sum;
  if (sum < memory) {
    throw new CgroupError(
      'EINVAL',
      path,
      `memory_swap_limit_in_bytes ${sum} counts memory and swap, so it cannot be below the memory limit ${memory}`,
    );
  }
  return sum - memory;
}

/**
 * Refuses a limit below what is in use, as the v1 kernel does: v2 would take it and OOM-kill. File pages
 * that can be dropped at once do not count.
 * @throws CgroupError EBUSY
 */
export function checkFits(dir: string, r: Resources): void {
  const limit = r.memoryLimitBytes;
  if (limit === undefined || limit < 0n) return;
  const { workingSetBytes } = stats(dir);
  if (workingSetBytes === undefined || workingSetBytes <= limit) return;
  throw new CgroupError(
    'EBUSY',
    join(dir, 'memory.max'),
    `cannot set a memory limit of ${limit} bytes: more is in use than that`,
  );
}

/**
 * Swap before memory: a smaller memory.max may push pages into swap that is to be allowed first.
 * The caller has asked {@link checkFits}.
 */
export async function update(dir: string, r: Resources): Promise<void> {
  const memory = r.memoryLimitBytes;
  const sum = r.memorySwapLimitBytes ?? (memory === -1n ? -1n : undefined);
  if (sum !== undefined) {
    const swap = swapOnly(dir, memory ?? limited(parseMax(readOptional(dir, 'memory.max'))), sum);
    // Missing where the kernel does not account swap: nothing to limit then.
    await writeOptional(dir, 'memory.swap.max', swap < 0n ? 'max' : `${swap}`);
  }
  if (memory !== undefined) await write(dir, 'memory.max', memory < 0n ? 'max' : `${memory}`);
}
