import type { ReadFile } from '../io.ts';
import * as pids from '../pids.ts';
import { psiStats } from '../psi.ts';
import type { CgroupDetails } from '../types.ts';
import * as cpu from './cpu.ts';
import * as hugetlb from './hugetlb.ts';
import * as io from './io.ts';
import * as memory from './memory.ts';

/** What one cgroup's own files tell; its processes are in those of the cgroups below as well. */
export type OwnDetails = Omit<CgroupDetails, 'timestampNs' | 'processes'>;

/** @param readLimit for files that change only when somebody writes them */
export function readDetails(
  dir: string,
  pageSizes: readonly string[],
  { read, readLimit }: { read: ReadFile; readLimit: ReadFile },
): OwnDetails {
  const stat = memory.readStat(dir, read);
  return {
    cpu: cpu.stats(dir, read),
    cpuLimits: cpu.readResources(dir, readLimit),
    memory: memory.stats(dir, read, stat),
    memoryDetails: memory.details(dir, read, stat, readLimit),
    hugepages: hugetlb.stats(dir, pageSizes, read),
    pids: pids.stats(dir, read, readLimit),
    io: io.stats(dir, read),
    psi: psiStats(dir, read),
    oomKills: memory.oomKills(dir, read),
  };
}

/**
 * The same of texts that somebody else has read, another kernel's agent say: those of {@link DETAIL_FILES} by their
 * names. One that is left out is one that the kernel does not have.
 */
export function parseDetails(files: Readonly<Record<string, string>>): OwnDetails {
  const read: ReadFile = (_, file) => (Object.hasOwn(files, file) ? files[file] : undefined);
  return readDetails('', [], { read, readLimit: read });
}
