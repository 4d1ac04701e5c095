import { readFile } from 'node:fs/promises';
import { arch, release } from 'node:os';
import { hasX32 } from '../sys/x32.ts';
import { capabilitiesOfMask } from './capabilities.ts';
import { hardLimits } from './rlimits.ts';

/** What of the host decides about a spec; read once at start with {@link readHostFacts}. */
export interface HostFacts {
  /** The daemon's own bounding set: no container can be given more. Names with the prefix `CAP_`. */
  readonly caps: ReadonlySet<string>;
  /** Lowest oom_score_adj that the daemon may set: -1000, or its own value without CAP_SYS_RESOURCE. */
  readonly minOomScoreAdj: number;
  /** The daemon's own hard limits by the kernel's names, such as `RLIMIT_NOFILE`. */
  readonly hardLimits: ReadonlyMap<string, bigint>;
  /** Go's name of the architecture (`amd64`, `arm64`), as seccomp profiles spell it. */
  readonly goArch: string;
  /** Kernel version, `[major, minor]`. */
  readonly kernel: readonly [number, number];
  /** True on v2; false on v1 and hybrid hosts, whose controllers are on v1. */
  readonly unifiedCgroups: boolean;
  /** The kernel limits swap per cgroup. */
  readonly swapAccounting: boolean;
  /** The kernel limits huge pages per cgroup. */
  readonly hugetlb: boolean;
  /**
   * Options of the host's cgroup2 mount that a container without a cgroup namespace of its own must
   * repeat: all such mounts share one superblock, and mounting without them strips them for the host.
   */
  readonly cgroup2Options: readonly string[];
  /** The kernel has the system calls of the x32 ABI, or nobody can say. */
  readonly x32: boolean;
}

/** The control group facts, which `cgroups/` knows. */
export type CgroupFacts = Pick<HostFacts, 'unifiedCgroups' | 'swapAccounting' | 'hugetlb'>;

/** Reads /proc and /sys of this process and host. Fails only where /proc is not mounted. */
export async function readHostFacts(cgroups: CgroupFacts): Promise<HostFacts> {
  const [status, oom, limits, mountinfo] = await Promise.all([
    readFile('/proc/self/status', 'utf8'),
    readFile('/proc/self/oom_score_adj', 'utf8'),
    readFile('/proc/self/limits', 'utf8'),
    readFile('/proc/self/mountinfo', 'utf8'),
  ]);
  const caps = capabilitiesOfMask(/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0');
  return {
    ...cgroups,
    caps,
    minOomScoreAdj: caps.has('CAP_SYS_RESOURCE') ? -1000 : Number.parseInt(oom, 10),
    hardLimits: hardLimits(limits),
    goArch: goArchOf(arch()),
    kernel: kernelVersion(release()),
    cgroup2Options: cgroup2Options(mountinfo),
    // Where berthd is filtered itself, asking might be its end.
    x32: arch() === 'x64' && (!/^Seccomp:\s*0$/m.test(status) || hasX32()),
  };
}

/** `6.1.0-18-amd64` → `[6, 1]`; `[0, 0]` when it is spelled in no known way. */
export function kernelVersion(text: string): readonly [number, number] {
  const m = /^(\d+)\.(\d+)/.exec(text);
  return [Number(m?.[1] ?? 0), Number(m?.[2] ?? 0)];
}

/** Go's name for Node's name of an architecture. */
export function goArchOf(nodeArch: string): string {
  const names: Record<string, string> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
  return names[nodeArch] ?? nodeArch;
}

/** The options to repeat (see {@link HostFacts.cgroup2Options}) from the text of a mountinfo file. */
export function cgroup2Options(mountinfo: string): string[] {
  for (const line of mountinfo.split('\n')) {
    const [mount, fs] = line.split(' - ');
    if (mount?.split(' ')[4] !== '/sys/fs/cgroup' || !fs?.startsWith('cgroup2 ')) continue;
    const options = fs.split(' ')[2]?.split(',') ?? [];
    return options.filter((o) => o === 'nsdelegate' || o === 'memory_recursiveprot');
  }
  return [];
}
