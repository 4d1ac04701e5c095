import { readOptional, write } from './io.ts';
import type { Resources } from './types.ts';

// The same two files on v1 and v2. Empty means "nothing yet" on v1 and "the parent's" on v2.

export function readResources(dir: string): Resources {
  return {
    cpusetCpus: readOptional(dir, 'cpuset.cpus')?.trim() || undefined,
    cpusetMems: readOptional(dir, 'cpuset.mems')?.trim() || undefined,
  };
}

export async function update(dir: string, r: Resources): Promise<void> {
  if (r.cpusetCpus !== undefined && r.cpusetCpus !== '') await write(dir, 'cpuset.cpus', r.cpusetCpus);
  if (r.cpusetMems !== undefined && r.cpusetMems !== '') await write(dir, 'cpuset.mems', r.cpusetMems);
}
