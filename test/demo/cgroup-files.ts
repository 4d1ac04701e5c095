import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseHierarchies } from '../../cgroups/mountinfo.ts';
import { formatBytes } from '../../src/cli/units.ts';

/** A file of a cgroup with what it says. */
export interface CgroupFile {
  /** How a person would read it. */
  command: string;
  /** The line of the file that counts. */
  value: string;
  /** The same for people. */
  meaning: string;
}

/** CPU time and memory of a cgroup, straight from the kernel's files. `cgroup` is absolute within a hierarchy. */
export async function readCgroupFiles(cgroup: string): Promise<CgroupFile[]> {
  const hierarchies = parseHierarchies(await readFile('/proc/self/mountinfo', 'utf8'), '/sys/fs/cgroup');
  const at = (controller: string, file: string): string => {
    const v1 = hierarchies.find(({ controllers }) => controllers.includes(controller));
    return path.join(v1?.mountpoint ?? '/sys/fs/cgroup', cgroup, file);
  };
  if (hierarchies.some(({ version }) => version === 1)) {
    return [
      await readOne(at('cpuacct', 'cpuacct.usage'), (ns) => `${milliseconds(BigInt(ns))} of CPU time`),
      await readOne(
        at('memory', 'memory.usage_in_bytes'),
        (n) => `${formatBytes(BigInt(n))} of memory in use`,
      ),
      await readOne(at('memory', 'memory.limit_in_bytes'), limit),
    ];
  }
  return [
    await readOne(at('cpu', 'cpu.stat'), (line) => {
      return `${milliseconds(BigInt(line.replace('usage_usec ', '')) * 1000n)} of CPU time`;
    }),
    await readOne(at('memory', 'memory.current'), (n) => `${formatBytes(BigInt(n))} of memory in use`),
    await readOne(at('memory', 'memory.max'), limit),
  ];
}

/** Every file here is one line, but for cpu.stat, whose first line is the usage. */
async function readOne(file: string, explain: (value: string) => string): Promise<CgroupFile> {
  const value = (await readFile(file, 'utf8')).split('\n')[0] ?? '';
  const command = `${file.endsWith('/cpu.stat') ? 'head -n 1' : 'cat'} ${file}`;
  return { command, value, meaning: explain(value) };
}

function limit(value: string): string {
  return /^\d+$/.test(value) ? `${formatBytes(BigInt(value))} is the limit` : 'no limit';
}

function milliseconds(ns: bigint): string {
  return `${Number(ns / 1_000_000n)} ms`;
}
