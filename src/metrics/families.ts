import type { CgroupDetails, IoDeviceStats, Psi } from '../../cgroups/types.ts';
import type { InterfaceCounters } from '../sys/namespaces.ts';
import { type Family, type FilesystemUse, family, ofCgroup, sample } from './family.ts';

/**
 * Labels of every series, as cAdvisor has them: `id` is the cgroup's path, `name` the container's id. Of the
 * pod's own cgroup `name`, `image` and `container` are empty; the pod's network counts as container `POD`.
 */
export const BASE_LABELS = ['id', 'name', 'image', 'container', 'pod', 'namespace'] as const;

const ns = { unit: 'nanoseconds' } as const;

/** Not told without a quota, as with cAdvisor: nothing can be throttled then. */
function ifLimited(
  value: (c: CgroupDetails) => bigint | undefined,
): (c: CgroupDetails) => bigint | undefined {
  return (c) => ((c.cpuLimits.cpuQuota ?? -1n) > 0n ? value(c) : undefined);
}

const cpu: readonly Family[] = [
  family(
    'counter',
    'cpu_usage_seconds_total',
    'CPU time used, in seconds.',
    ({ cgroup }) => sample(cgroup?.cpu.usageNs, 'total'),
    { ...ns, labels: ['cpu'] },
  ),
  ofCgroup(
    'counter',
    'cpu_user_seconds_total',
    'CPU time in user mode, in seconds.',
    (c) => c.cpu.userNs,
    ns,
  ),
  ofCgroup(
    'counter',
    'cpu_system_seconds_total',
    'CPU time in the kernel, in seconds.',
    (c) => c.cpu.systemNs,
    ns,
  ),
  ofCgroup(
    'counter',
    'cpu_cfs_periods_total',
    'Periods in which the CPU quota was enforced.',
    ifLimited((c) => c.cpu.nrPeriods),
  ),
  ofCgroup(
    'counter',
    'cpu_cfs_throttled_periods_total',
    'Periods in which the quota was used up.',
    ifLimited((c) => c.cpu.nrThrottled),
  ),
  ofCgroup(
    'counter',
    'cpu_cfs_throttled_seconds_total',
    'Time spent waiting for the next period of the quota, in seconds.',
    ifLimited((c) => c.cpu.throttledNs),
    ns,
  ),
];

const memory: readonly Family[] = [
  ofCgroup('gauge', 'memory_usage_bytes', 'Memory in use, page cache included.', (c) => c.memory.usageBytes),
  ofCgroup(
    'gauge',
    'memory_working_set_bytes',
    'Memory in use without file pages that were not touched lately; what evictions go by.',
    (c) => c.memory.workingSetBytes,
  ),
  ofCgroup('gauge', 'memory_rss', 'Anonymous memory, in bytes.', (c) => c.memory.rssBytes),
  ofCgroup('gauge', 'memory_cache', 'Page cache, in bytes.', (c) => c.memory.cacheBytes),
  ofCgroup('gauge', 'memory_swap', 'Swap in use, in bytes.', (c) => c.memory.swapUsageBytes),
  ofCgroup(
    'gauge',
    'memory_kernel_usage',
    'Memory that the kernel uses for it, in bytes.',
    (c) => c.memoryDetails.kernelBytes,
  ),
  ofCgroup(
    'gauge',
    'memory_mapped_file',
    'Size of mapped files, in bytes.',
    (c) => c.memoryDetails.mappedFileBytes,
  ),
  ofCgroup(
    'gauge',
    'memory_max_usage_bytes',
    'The most memory that was in use at once.',
    (c) => c.memoryDetails.maxUsageBytes,
  ),
  ofCgroup(
    'gauge',
    'memory_total_active_file_bytes',
    'File pages that were touched lately, in bytes.',
    (c) => c.memoryDetails.activeFileBytes,
  ),
  ofCgroup(
    'gauge',
    'memory_total_inactive_file_bytes',
    'File pages that were not touched lately, in bytes.',
    (c) => c.memoryDetails.inactiveFileBytes,
  ),
  ofCgroup(
    'counter',
    'memory_failcnt',
    'How often the memory limit was hit.',
    (c) => c.memoryDetails.limitHits,
  ),
  family(
    'counter',
    'memory_failures_total',
    'Page faults: pgmajfault had to read a disk, scope hierarchy counts cgroups below, too.',
    ({ cgroup }) => (cgroup === undefined ? [] : pageFaults(cgroup)),
    { labels: ['failure_type', 'scope'] },
  ),
  ofCgroup('counter', 'oom_events_total', 'Processes killed for want of memory.', (c) => c.oomKills),
];

function pageFaults({ memory: m, memoryDetails: d }: CgroupDetails) {
  return [
    ...sample(d.ownPageFaults ?? m.pageFaults, 'pgfault', 'container'),
    ...sample(m.pageFaults, 'pgfault', 'hierarchy'),
    ...sample(d.ownMajorPageFaults ?? m.majorPageFaults, 'pgmajfault', 'container'),
    ...sample(m.majorPageFaults, 'pgmajfault', 'hierarchy'),
  ];
}

const hugepages: readonly Family[] = [
  family(
    'gauge',
    'hugetlb_usage_bytes',
    'Huge pages in use, in bytes.',
    ({ cgroup }) => (cgroup?.hugepages ?? []).flatMap((h) => sample(h.usageBytes, h.pageSize)),
    { labels: ['pagesize'] },
  ),
  family(
    'gauge',
    'hugetlb_max_usage_bytes',
    'The most huge pages that were in use at once, in bytes.',
    ({ cgroup }) => (cgroup?.hugepages ?? []).flatMap((h) => sample(h.maxUsageBytes, h.pageSize)),
    { labels: ['pagesize'] },
  ),
];

function ofFilesystem(name: string, help: string, value: (f: FilesystemUse) => bigint | undefined): Family {
  return family(
    'gauge',
    name,
    help,
    ({ filesystem: f }) => (f === undefined ? [] : sample(value(f), f.device)),
    { labels: ['device'] },
  );
}

function ofDevices(name: string, help: string, value: (d: IoDeviceStats) => bigint): Family {
  return family(
    'counter',
    name,
    help,
    ({ cgroup, deviceName }) =>
      (cgroup?.io ?? []).flatMap((d) => sample(value(d), deviceName(d.major, d.minor))),
    { labels: ['device'] },
  );
}

const storage: readonly Family[] = [
  ofFilesystem('fs_usage_bytes', 'Size of the writable layer.', (f) => f.usedBytes),
  ofFilesystem('fs_limit_bytes', 'Size of the file system that holds the layer.', (f) => f.sizeBytes),
  ofFilesystem('fs_inodes_total', 'Inodes of that file system.', (f) => f.inodes),
  ofFilesystem('fs_inodes_free', 'Free inodes of that file system.', (f) => f.inodesFree),
  ofDevices('fs_reads_total', 'Reads from block devices.', (d) => d.reads),
  ofDevices('fs_reads_bytes_total', 'Bytes read from block devices.', (d) => d.readBytes),
  ofDevices('fs_writes_total', 'Writes to block devices.', (d) => d.writes),
  ofDevices('fs_writes_bytes_total', 'Bytes written to block devices.', (d) => d.writeBytes),
  family(
    'counter',
    'blkio_device_usage_total',
    'Bytes read from and written to each block device.',
    ({ cgroup, deviceName }) =>
      (cgroup?.io ?? []).flatMap((d) => {
        const labels = [deviceName(d.major, d.minor), String(d.major), String(d.minor)];
        return [...sample(d.readBytes, ...labels, 'Read'), ...sample(d.writeBytes, ...labels, 'Write')];
      }),
    { labels: ['device', 'major', 'minor', 'operation'] },
  ),
];

function ofInterfaces(name: string, help: string, value: (i: InterfaceCounters) => bigint): Family {
  return family(
    'counter',
    `network_${name}_total`,
    help,
    ({ interfaces = [] }) => interfaces.flatMap((i) => sample(value(i), i.name)),
    { labels: ['interface'] },
  );
}

const network: readonly Family[] = [
  ofInterfaces('receive_bytes', 'Bytes received.', (i) => i.rxBytes),
  ofInterfaces('receive_packets', 'Packets received.', (i) => i.rxPackets),
  ofInterfaces('receive_packets_dropped', 'Packets dropped while receiving.', (i) => i.rxDropped),
  ofInterfaces('receive_errors', 'Errors while receiving.', (i) => i.rxErrors),
  ofInterfaces('transmit_bytes', 'Bytes sent.', (i) => i.txBytes),
  ofInterfaces('transmit_packets', 'Packets sent.', (i) => i.txPackets),
  ofInterfaces('transmit_packets_dropped', 'Packets dropped while sending.', (i) => i.txDropped),
  ofInterfaces('transmit_errors', 'Errors while sending.', (i) => i.txErrors),
];

const processes: readonly Family[] = [
  family('gauge', 'processes', 'Processes.', (m) => sample(m.processes)),
  ofCgroup('gauge', 'threads', 'Threads of all processes.', (c) => c.pids.current),
  ofCgroup('gauge', 'threads_max', 'Limit of threads; 0: none.', (c) => c.pids.limit ?? 0n),
  family('gauge', 'file_descriptors', 'Open file descriptors.', (m) => sample(m.openFiles?.descriptors)),
  family('gauge', 'sockets', 'Open sockets; counted once a minute.', (m) => sample(m.openFiles?.sockets)),
  family(
    'gauge',
    'ulimits_soft',
    "Soft limits of the container's first process.",
    ({ openFiles }) => sample(openFiles?.softLimit, 'max_open_files'),
    { labels: ['ulimit'] },
  ),
];

/** Unlimited is 0 here, as with cAdvisor. */
function limit(value: bigint | undefined): bigint {
  return value ?? 0n;
}

function withSwap({ limitBytes, swapLimitBytes }: CgroupDetails['memory']): bigint | undefined {
  return limitBytes === undefined || swapLimitBytes === undefined ? undefined : limitBytes + swapLimitBytes;
}

const spec: readonly Family[] = [
  ofCgroup(
    'gauge',
    'spec_cpu_period',
    'Period of the CPU quota, in microseconds.',
    (c) => c.cpuLimits.cpuPeriod,
  ),
  ofCgroup(
    'gauge',
    'spec_cpu_quota',
    'CPU time in each period, in microseconds; not told without a quota.',
    ifLimited((c) => c.cpuLimits.cpuQuota),
  ),
  ofCgroup('gauge', 'spec_cpu_shares', 'Weight among others, 2 to 262144.', (c) => c.cpuLimits.cpuShares),
  ofCgroup('gauge', 'spec_memory_limit_bytes', 'Memory limit; 0: none.', (c) => limit(c.memory.limitBytes)),
  ofCgroup('gauge', 'spec_memory_reservation_limit_bytes', 'Memory kept from reclaim; 0: none.', (c) =>
    limit(c.memoryDetails.reservationBytes),
  ),
  ofCgroup('gauge', 'spec_memory_swap_limit_bytes', 'Limit of memory and swap together; 0: none.', (c) =>
    limit(withSwap(c.memory)),
  ),
  family('gauge', 'start_time_seconds', 'Start, in seconds since 1970.', (m) => sample(m.startedAt), ns),
  family(
    'gauge',
    'last_seen',
    'When it was last measured, in seconds since 1970.',
    (m) => sample(m.lastSeen),
    ns,
  ),
];

function pressure(resource: 'cpu' | 'memory' | 'io'): readonly Family[] {
  const psi = (c: CgroupDetails): Psi | undefined => c.psi?.[resource];
  return [
    ofCgroup(
      'counter',
      `pressure_${resource}_waiting_seconds_total`,
      `Time in which some task waited for ${resource}, in seconds.`,
      (c) => psi(c)?.some.totalNs,
      ns,
    ),
    ofCgroup(
      'counter',
      `pressure_${resource}_stalled_seconds_total`,
      `Time in which all tasks waited for ${resource}, in seconds.`,
      (c) => psi(c)?.full?.totalNs,
      ns,
    ),
  ];
}

/** Every family of pods and containers, by cAdvisor's names. */
export const families: readonly Family[] = [
  ...cpu,
  ...memory,
  ...hugepages,
  ...storage,
  ...network,
  ...processes,
  ...spec,
  ...pressure('cpu'),
  ...pressure('memory'),
  ...pressure('io'),
];
