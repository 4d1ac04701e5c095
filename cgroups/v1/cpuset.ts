import { dirname } from 'node:path';
import { readOptional, write } from '../io.ts';

/**
 * Fills a new cpuset from its parent: a v1 cpuset starts empty and takes no process until it has cpus
 * and memory nodes (cpusets.rst, section 1.1).
 */
export async function inheritCpuset(dir: string): Promise<void> {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (readOptional(dir, file)?.trim() !== '') continue;
    const parent = readOptional(dirname(dir), file)?.trim();
    if (parent !== undefined && parent !== '') await write(dir, file, parent);
  }
}
