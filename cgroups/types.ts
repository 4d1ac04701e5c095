/** How the host mounts its control groups. `hybrid` is v1 controllers plus a v2 tree beside them. */
export type CgroupMode = 'v1' | 'hybrid' | 'v2';

/** Who makes the cgroups: the OCI runtime by mkdir, or systemd at the OCI runtime's request. */
export type CgroupDriver = 'cgroupfs' | 'systemd';

export interface HugepageLimit {
  /** As the kernel names it in file names: `2MB`, `1GB`, `64KB`. */
  readonly pageSize: string;
  readonly limitBytes: bigint;
}

/**
 * Limits of one cgroup, neutral between v1 and v2 (CRI's LinuxContainerResources).
 * A missing field means "leave as it is" for {@link CgroupManager.update} and "unknown" for
 * {@link CgroupManager.readResources}. `-1n` means unlimited for quota, memory, swap and pids.
 */
export interface Resources {
  /** CFS period in microseconds. */
  readonly cpuPeriod?: bigint | undefined;
  /** CFS quota in microseconds per period. */
  readonly cpuQuota?: bigint | undefined;
  /** v1 scale, 2 to 262144; converted to `cpu.weight` on v2. */
  readonly cpuShares?: bigint | undefined;
  readonly memoryLimitBytes?: bigint | undefined;
  /** Memory plus swap, as OCI's `memory.swap` and CRI define it, on v2 too. */
  readonly memorySwapLimitBytes?: bigint | undefined;
  /** List format of cpuset(7), such as `0-3,8`. */
  readonly cpusetCpus?: string | undefined;
  readonly cpusetMems?: string | undefined;
  readonly hugepageLimits?: readonly HugepageLimit[] | undefined;
  /** v2 file name → value; takes precedence over the other fields. Refused on v1. */
  readonly unified?: Readonly<Record<string, string>> | undefined;
  /** Number of tasks. */
  readonly pidsLimit?: bigint | undefined;
}

export interface CpuStats {
  readonly usageNs: bigint | undefined;
  readonly userNs: bigint | undefined;
  readonly systemNs: bigint | undefined;
  readonly nrPeriods: bigint | undefined;
  readonly nrThrottled: bigint | undefined;
  readonly throttledNs: bigint | undefined;
}

/** All in bytes, except the two fault counters. */
export interface MemoryStats {
  readonly usageBytes: bigint | undefined;
  /** Undefined when unlimited. */
  readonly limitBytes: bigint | undefined;
  /** Usage less inactive file pages, the kubelet's eviction measure. */
  readonly workingSetBytes: bigint | undefined;
  readonly rssBytes: bigint | undefined;
  readonly cacheBytes: bigint | undefined;
  /** Limit less working set; undefined when unlimited. */
  readonly availableBytes: bigint | undefined;
  readonly pageFaults: bigint | undefined;
  readonly majorPageFaults: bigint | undefined;
  /** Swap alone, without memory. Undefined when the kernel does not account swap. */
  readonly swapUsageBytes: bigint | undefined;
  /** Swap alone, without memory; undefined when unlimited. */
  readonly swapLimitBytes: bigint | undefined;
}

export interface PidsStats {
  /** Tasks (threads included). */
  readonly current: bigint | undefined;
  /** Undefined when unlimited. */
  readonly limit: bigint | undefined;
}

/** One line of a pressure file: averages in percent, total in nanoseconds. */
export interface PsiLine {
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
  readonly totalNs: bigint;
}

export interface Psi {
  readonly some: PsiLine;
  /** Absent for cpu before kernel 5.13. */
  readonly full: PsiLine | undefined;
}

export interface PsiStats {
  readonly cpu: Psi | undefined;
  readonly memory: Psi | undefined;
  readonly io: Psi | undefined;
}

/** Transfer counters of one block device. */
export interface IoDeviceStats {
  readonly major: number;
  readonly minor: number;
  readonly readBytes: bigint;
  readonly writeBytes: bigint;
  readonly reads: bigint;
  readonly writes: bigint;
}

/** What the kubelet's statistics of a container want of {@link CgroupDetails}: less than half of the files. */
export interface CgroupUsage extends Pick<CgroupDetails, 'timestampNs' | 'memory' | 'psi'> {
  readonly cpu: Pick<CpuStats, 'usageNs'>;
}

/** Use of huge pages of one size, bytes. */
export interface HugepageStats {
  /** As in file names: `2MB`. */
  readonly pageSize: string;
  readonly usageBytes: bigint;
  /** The most so far; v2 does not tell. */
  readonly maxUsageBytes: bigint | undefined;
}

/** What metrics tell of a cgroup's memory beside {@link MemoryStats}; bytes. */
export interface MemoryDetails {
  readonly kernelBytes: bigint | undefined;
  readonly mappedFileBytes: bigint | undefined;
  readonly activeFileBytes: bigint | undefined;
  readonly inactiveFileBytes: bigint | undefined;
  /** The most so far. */
  readonly maxUsageBytes: bigint | undefined;
  /** How often the limit was hit. */
  readonly limitHits: bigint | undefined;
  /** What is kept from reclaim (v2 memory.low) or reclaimed last (v1 soft limit); undefined when not set. */
  readonly reservationBytes: bigint | undefined;
  /** Without those of cgroups below, where the kernel tells them apart (v1). */
  readonly ownPageFaults: bigint | undefined;
  readonly ownMajorPageFaults: bigint | undefined;
}

/** One reading of all about a cgroup, for metrics. What the kernel does not tell is undefined, never 0. */
export interface CgroupDetails {
  /** Nanoseconds since the epoch, taken right before the files were read. */
  readonly timestampNs: bigint;
  readonly cpu: CpuStats;
  readonly memory: MemoryStats;
  readonly pids: PidsStats;
  readonly io: readonly IoDeviceStats[];
  /** Undefined where the kernel keeps no pressure figures for this cgroup (v1, or booted with psi=0). */
  readonly psi: PsiStats | undefined;
  /** Processes of the subtree killed by the OOM killer. */
  readonly oomKills: bigint | undefined;
  readonly memoryDetails: MemoryDetails;
  readonly hugepages: readonly HugepageStats[];
  readonly cpuLimits: Pick<Resources, 'cpuShares' | 'cpuPeriod' | 'cpuQuota'>;
  /** Processes of the subtree, ascending; undefined when they are in another kernel. */
  readonly processes: readonly number[] | undefined;
}

/**
 * The one interface to control groups; nothing outside this folder knows the version.
 *
 * `path` is always the absolute path of a cgroup inside its hierarchy (`/kubepods/podX/<id>`), as
 * {@link cgroupName} returns it. Reads are synchronous: the files are made by the kernel on demand
 * and take about 9 µs each that way against 85 µs through the thread pool (measured, Node 24), 1 µs when
 * they are kept open; a caller that reads hundreds of cgroups yields to the event loop between them. Writes can wait for
 * reclaim or a kernel mutex, so they are asynchronous. All errors are CgroupError.
 */
export interface CgroupManager {
  readonly mode: CgroupMode;
  /**
   * Directories that {@link create}, or an OCI runtime given the path, would make; parents before
   * children, in all hierarchies. To be recorded before they are made, so that removeIfEmpty can take
   * away those and no others. None under the systemd driver: slices and scopes are systemd's to make
   * and to remove.
   */
  missing(path: string): string[];
  /** Makes what is {@link missing}, ready for processes; what exists stays as it is. */
  create(path: string): Promise<void>;
  /** Puts a process into the cgroup, in every hierarchy. */
  attach(path: string, pid: number): Promise<void>;
  /**
   * Makes a cgroup for a process and puts it there, in every hierarchy; under the systemd driver the cgroup is a scope,
   * which systemd takes down with its last process.
   */
  join(path: string, pid: number): Promise<void>;
  /**
   * Puts a process into the root of every hierarchy, so that its cgroup can be removed. The root takes one in any case
   * on the host; in a container with its own view of the tree it fails with EBUSY.
   */
  leave(pid: number): Promise<void>;
  exists(path: string): boolean;
  /** Every process in the subtree, each once, ascending; empty when the cgroup is absent. */
  procs(path: string): number[];
  /** Undefined when the cgroup is absent. */
  usage(path: string): CgroupUsage | undefined;
  /**
   * Undefined when the cgroup is absent.
   * @param pageSizes the huge pages to look for, as the kernel names them in file names
   */
  details(path: string, pageSizes: readonly string[]): CgroupDetails | undefined;
  /** CPU time of the subtree so far, nanoseconds, from one file; undefined when unknown or absent. */
  cpuUsageNs(path: string): bigint | undefined;
  /** Tasks of the subtree, threads included, from one file; undefined when unknown or absent. */
  tasks(path: string): bigint | undefined;
  /**
   * OOM kills in the subtree; undefined when unknown or when the cgroup is absent, so it must be
   * asked before the cgroup is removed.
   */
  oomKills(path: string): bigint | undefined;
  readResources(path: string): Resources;
  /**
   * Files of what is read often stay open; this closes those of all other cgroups. To be called now and then,
   * and with none at the end.
   */
  retain(paths: Iterable<string>): void;
  /**
   * Writes the given limits in an order the kernel accepts when growing and when shrinking; under the
   * systemd driver systemd is told as well.
   * Fails with EBUSY when the memory in use does not fit under a new limit.
   */
  update(path: string, resources: Resources): Promise<void>;
  /** Resolves when every task is frozen. Thawed again when the deadline passes first. */
  freeze(path: string, signal?: AbortSignal): Promise<void>;
  thaw(path: string): Promise<void>;
  /** SIGKILL to the whole subtree, until it is empty. An absent cgroup is done. */
  kill(path: string, signal?: AbortSignal): Promise<void>;
  /** Removes the subtree from every hierarchy; processes must be gone. An absent cgroup is done. */
  remove(path: string, signal?: AbortSignal): Promise<void>;
}
