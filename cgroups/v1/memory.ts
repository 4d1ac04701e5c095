import { type ReadFile, readOptional, write } from '../io.ts';
import { flatReader, parseUint } from '../parse.ts';
import type { MemoryDetails, MemoryStats, Resources } from '../types.ts';

const LIMIT = 'memory.limit_in_bytes';
const SWAP_LIMIT = 'memory.memsw.limit_in_bytes';

/** "No limit" is LONG_MAX rounded down to a page, and pages differ: anything this large is none. */
const UNLIMITED = 1n << 62n;

function limit(dir: string, file: string, read: ReadFile): bigint | undefined {
  const value = parseUint(read(dir, file));
  return value === undefined || value >= UNLIMITED ? undefined : value;
}

function atLeast0(value: bigint): bigint {
  return value < 0n ? 0n : value;
}

/** Values of memory.stat, the most costly of the files. */
export function readStat(dir: string, read: ReadFile = readOptional): (key: string) => bigint | undefined {
  return flatReader(read(dir, 'memory.stat'));
}

/** @param stat of memory.stat, when the caller has read it */
export function stats(dir: string, read: ReadFile = readOptional, stat = readStat(dir, read)): MemoryStats {
  const usageBytes = parseUint(read(dir, 'memory.usage_in_bytes'));
  const limitBytes = limit(dir, LIMIT, read);
  // total_* covers the subtree, as every v2 figure does.
  const inactive = stat('total_inactive_file');
  const workingSetBytes =
    usageBytes === undefined || inactive === undefined ? undefined : atLeast0(usageBytes - inactive);
  const withSwap = parseUint(read(dir, 'memory.memsw.usage_in_bytes'));
  const withSwapLimit = withSwap === undefined ? undefined : limit(dir, SWAP_LIMIT, read);
  return {
    usageBytes,
    limitBytes,
    workingSetBytes,
    rssBytes: stat('total_rss'),
    cacheBytes: stat('total_cache'),
    availableBytes:
      limitBytes === undefined || workingSetBytes === undefined
        ? undefined
        : atLeast0(limitBytes - workingSetBytes),
    pageFaults: stat('total_pgfault'),
    majorPageFaults: stat('total_pgmajfault'),
    // memsw counts memory and swap together.
    swapUsageBytes:
      withSwap === undefined || usageBytes === undefined ? undefined : atLeast0(withSwap - usageBytes),
    swapLimitBytes:
      withSwapLimit === undefined || limitBytes === undefined
        ? undefined
        : atLeast0(withSwapLimit - limitBytes),
  };
}

export function details(
  dir: string,
  read: ReadFile = readOptional,
  stat = readStat(dir, read),
  readLimit = read,
): MemoryDetails {
  const uint = (file: string) => parseUint(read(dir, file));
  return {
    kernelBytes: uint('memory.kmem.usage_in_bytes'),
    mappedFileBytes: stat('total_mapped_file'),
    activeFileBytes: stat('total_active_file'),
    inactiveFileBytes: stat('total_inactive_file'),
    maxUsageBytes: uint('memory.max_usage_in_bytes'),
    limitHits: uint('memory.failcnt'),
    reservationBytes: limit(dir, 'memory.soft_limit_in_bytes', readLimit),
    ownPageFaults: stat('pgfault'),
    ownMajorPageFaults: stat('pgmajfault'),
  };
}

/**
 * v1 counts a kill only in the victim's own cgroup, so the subtree is summed. Since kernel 4.13.
 * @param dirs of the subtree
 */
export function oomKills(dirs: readonly string[], read: ReadFile = readOptional): bigint | undefined {
  let total: bigint | undefined;
  for (const dir of dirs) {
    const own = flatReader(read(dir, 'memory.oom_control'))('oom_kill');
    if (own !== undefined) total = (total ?? 0n) + own;
  }
  return total;
}

export function readResources(dir: string): Resources {
  const orUnlimited = (file: string) => {
    const value = parseUint(readOptional(dir, file));
    return value !== undefined && value >= UNLIMITED ? -1n : value;
  };
  return { memoryLimitBytes: orUnlimited(LIMIT), memorySwapLimitBytes: orUnlimited(SWAP_LIMIT) };
}

/**
 * The kernel holds memory.limit ≤ memsw.limit after every single write, so memsw goes first when
 * growing and last when shrinking. Shrinking below what cannot be reclaimed fails with EBUSY.
 */
export async function update(dir: string, r: Resources): Promise<void> {
  const memory = r.memoryLimitBytes;
  const current = parseUint(readOptional(dir, SWAP_LIMIT));
  // Without swap accounting the file is missing and there is nothing to limit.
  const swap =
    current === undefined ? undefined : (r.memorySwapLimitBytes ?? impliedSwap(dir, memory, current));
  const growing = swap !== undefined && current !== undefined && (swap < 0n || swap > current);
  if (swap !== undefined && growing) await write(dir, SWAP_LIMIT, `${swap}`);
  if (memory !== undefined) await write(dir, LIMIT, `${memory}`);
  if (swap !== undefined && !growing) await write(dir, SWAP_LIMIT, `${swap}`);
}

/** The memsw limit that must change along with memory alone, keeping the allowance of swap as it was. */
function impliedSwap(dir: string, memory: bigint | undefined, current: bigint): bigint | undefined {
  if (memory === undefined) return undefined;
  if (memory < 0n) return -1n;
  if (memory <= current) return undefined;
  return memory + atLeast0(current - (parseUint(readOptional(dir, LIMIT)) ?? current));
}
