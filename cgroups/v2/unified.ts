import { CgroupError, write } from '../io.ts';
import type { Resources } from '../types.ts';
import { sharesToWeight } from '../weight.ts';
import { swapOnly } from './memory.ts';

/**
 * The v2 files that OCI runtimes fill in each in its own way from the limits of the OCI specification, as
 * an entry of its `unified` map: runc before 1.3.2 takes another curve to `cpu.weight`, and runc with the
 * systemd driver does not tell systemd of a `memory.swap.max` of 0, so that the next daemon-reload allows
 * swap without limit.
 * @throws CgroupError EINVAL when the sum of memory and swap is smaller than memory alone
 */
export function unifiedFiles(
  r: Pick<Resources, 'cpuShares' | 'memoryLimitBytes' | 'memorySwapLimitBytes'>,
): Record<string, string> {
  const { cpuShares, memoryLimitBytes, memorySwapLimitBytes: sum } = r;
  const swap = sum === undefined ? undefined : swapOnly('memory.swap.max', memoryLimitBytes, sum);
  return {
    ...(cpuShares === undefined ? {} : { 'cpu.weight': `${sharesToWeight(cpuShares)}` }),
    ...(swap === undefined ? {} : { 'memory.swap.max': swap < 0n ? 'max' : `${swap}` }),
  };
}

/**
 * Checks CRI's `unified` map: keys are names of controller files. `cgroup.*` is refused, because those
 * files (procs, kill, freeze, subtree_control) act on processes and on the tree instead of limiting.
 * @throws CgroupError EINVAL
 */
export function checkUnified(unified: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(unified)) {
    const named = /^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+$/.test(key) && !key.startsWith('cgroup.');
    if (!named) {
      throw new CgroupError(
        'EINVAL',
        key,
        `unified: ${JSON.stringify(key)} is not a controller file such as "memory.high"`,
      );
    }
    if (value.length > 4096)
      throw new CgroupError('EINVAL', key, `unified: the value of ${key} is longer than 4096 characters`);
  }
}

/** Writes the `unified` map; multi-line values (io.max) go line by line, as the kernel takes one a write. */
export async function update(dir: string, unified: Readonly<Record<string, string>>): Promise<void> {
  checkUnified(unified);
  for (const [file, value] of Object.entries(unified)) {
    for (const line of value.split('\n')) await write(dir, file, line);
  }
}
