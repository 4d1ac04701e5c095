import { CgroupError, write } from '../io.ts';

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
