import { describe, expect, it } from 'vitest';
import type { CgroupDetails } from '../../../cgroups/types.ts';
import { encodeMetricsResponse, encodePodMetrics, toDescriptors } from '../../../cri/mapping/metrics.ts';
import { loadProtos } from '../../../proto/load.ts';
import type { PodMetrics, Series } from '../../../src/metrics/collect.ts';
import { BASE_LABELS, families } from '../../../src/metrics/families.ts';
import type { Measured } from '../../../src/metrics/family.ts';

const NS = 1_000_000_000n;
const MAX64 = 18_446_744_073_709_551_615n;

/** Different numbers everywhere, so that no two can be mixed up. */
const CGROUP: CgroupDetails = {
  timestampNs: 1_700_000_000_123_456_789n,
  cpu: {
    usageNs: 11n * NS + 900_000_000n,
    userNs: 12n * NS,
    systemNs: 13n * NS,
    nrPeriods: 14n,
    nrThrottled: 15n,
    throttledNs: 16n * NS,
  },
  memory: {
    usageBytes: 21n,
    limitBytes: 22n,
    workingSetBytes: 23n,
    rssBytes: 24n,
    cacheBytes: 25n,
    availableBytes: 26n,
    pageFaults: 27n,
    majorPageFaults: 28n,
    swapUsageBytes: 29n,
    swapLimitBytes: 30n,
  },
  memoryDetails: {
    kernelBytes: 31n,
    mappedFileBytes: 32n,
    activeFileBytes: 33n,
    inactiveFileBytes: 34n,
    maxUsageBytes: MAX64,
    limitHits: 36n,
    reservationBytes: 37n,
    ownPageFaults: 38n,
    ownMajorPageFaults: 39n,
  },
  pids: { current: 41n, limit: 42n },
  io: [{ major: 8, minor: 1, readBytes: 51n, writeBytes: 52n, reads: 53n, writes: 54n }],
  psi: {
    cpu: { some: line(61n), full: line(62n) },
    memory: { some: line(63n), full: line(64n) },
    io: { some: line(65n), full: line(66n) },
  },
  oomKills: 71n,
  hugepages: [{ pageSize: '2MB', usageBytes: 72n, maxUsageBytes: 73n }],
  cpuLimits: { cpuPeriod: 81n, cpuQuota: 82n, cpuShares: 83n },
  processes: undefined,
};
function line(seconds: bigint) {
  return { avg10: 0, avg60: 0, avg300: 0, totalNs: seconds * NS };
}

const FULL: Measured = {
  cgroup: CGROUP,
  processes: 2n,
  startedAt: 91n * NS + 1n,
  lastSeen: 92n * NS,
  filesystem: { device: '/dev/x', usedBytes: 93n, sizeBytes: 94n, inodes: 95n, inodesFree: 96n },
  openFiles: { descriptors: 97n, sockets: 98n, softLimit: 99n },
  interfaces: [
    {
      ...{ name: 'eth0', rxBytes: 1n, rxPackets: 2n, rxErrors: 3n, rxDropped: 4n },
      ...{ txBytes: 5n, txPackets: 6n, txErrors: 7n, txDropped: 8n },
    },
  ],
  deviceName: (major, minor) => `/dev/${major}-${minor}`,
};

const BASE = ['/p/c1', 'c1', 'shop/app:1', 'app', 'web', 'default'];

const { ListPodSandboxMetrics, StreamPodSandboxMetrics } = loadProtos().runtimeService;

/** As the kubelet gets it. */
function received(metrics: PodMetrics) {
  const bytes = encodeMetricsResponse([encodePodMetrics(metrics)]);
  const [one] = ListPodSandboxMetrics.responseDeserialize(bytes).pod_metrics;
  expect(StreamPodSandboxMetrics.responseDeserialize(bytes).pod_sandbox_metrics).toEqual([one]);
  if (one === undefined) throw new Error('no pod');
  return one;
}

/** All samples of a container as `name{own labels}` → value. */
function samples(measured: Measured): Record<string, string> {
  const series: Series = { base: BASE, timestampNs: CGROUP.timestampNs, measured };
  const { container_metrics } = received({
    sandboxId: 'sb1',
    pod: [],
    containers: [{ ...series, containerId: 'c1' }],
  });
  return Object.fromEntries(
    (container_metrics[0]?.metrics ?? []).map((metric) => {
      const own = metric.label_values.slice(BASE.length);
      return [`${metric.name.replace('container_', '')}{${own.join()}}`, metric.value?.value ?? ''];
    }),
  );
}

describe('the families', () => {
  it('have all names that cAdvisor has of a container, and distinct ones', () => {
    const names = families.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBeGreaterThanOrEqual(56);
    for (const { name, help, labels } of families) {
      expect(name).toMatch(/^container_[a-z_]+$/);
      expect(help).toMatch(/^[A-Z].*\.$/);
      expect(new Set([...BASE_LABELS, ...labels]).size).toBe(BASE_LABELS.length + labels.length);
    }
  });

  it('tell each figure under its own name', () => {
    expect(samples(FULL)).toEqual({
      'cpu_usage_seconds_total{total}': '11',
      'cpu_user_seconds_total{}': '12',
      'cpu_system_seconds_total{}': '13',
      'cpu_cfs_periods_total{}': '14',
      'cpu_cfs_throttled_periods_total{}': '15',
      'cpu_cfs_throttled_seconds_total{}': '16',
      'memory_usage_bytes{}': '21',
      'memory_working_set_bytes{}': '23',
      'memory_rss{}': '24',
      'memory_cache{}': '25',
      'memory_swap{}': '29',
      'memory_kernel_usage{}': '31',
      'memory_mapped_file{}': '32',
      'memory_max_usage_bytes{}': String(MAX64),
      'memory_total_active_file_bytes{}': '33',
      'memory_total_inactive_file_bytes{}': '34',
      'memory_failcnt{}': '36',
      'memory_failures_total{pgfault,container}': '38',
      'memory_failures_total{pgfault,hierarchy}': '27',
      'memory_failures_total{pgmajfault,container}': '39',
      'memory_failures_total{pgmajfault,hierarchy}': '28',
      'oom_events_total{}': '71',
      'hugetlb_usage_bytes{2MB}': '72',
      'hugetlb_max_usage_bytes{2MB}': '73',
      'fs_usage_bytes{/dev/x}': '93',
      'fs_limit_bytes{/dev/x}': '94',
      'fs_inodes_total{/dev/x}': '95',
      'fs_inodes_free{/dev/x}': '96',
      'fs_reads_total{/dev/8-1}': '53',
      'fs_reads_bytes_total{/dev/8-1}': '51',
      'fs_writes_total{/dev/8-1}': '54',
      'fs_writes_bytes_total{/dev/8-1}': '52',
      'blkio_device_usage_total{/dev/8-1,8,1,Read}': '51',
      'blkio_device_usage_total{/dev/8-1,8,1,Write}': '52',
      'network_receive_bytes_total{eth0}': '1',
      'network_receive_packets_total{eth0}': '2',
      'network_receive_packets_dropped_total{eth0}': '4',
      'network_receive_errors_total{eth0}': '3',
      'network_transmit_bytes_total{eth0}': '5',
      'network_transmit_packets_total{eth0}': '6',
      'network_transmit_packets_dropped_total{eth0}': '8',
      'network_transmit_errors_total{eth0}': '7',
      'processes{}': '2',
      'threads{}': '41',
      'threads_max{}': '42',
      'file_descriptors{}': '97',
      'sockets{}': '98',
      'ulimits_soft{max_open_files}': '99',
      'spec_cpu_period{}': '81',
      'spec_cpu_quota{}': '82',
      'spec_cpu_shares{}': '83',
      'spec_memory_limit_bytes{}': '22',
      'spec_memory_reservation_limit_bytes{}': '37',
      'spec_memory_swap_limit_bytes{}': '52',
      'start_time_seconds{}': '91',
      'last_seen{}': '92',
      'pressure_cpu_waiting_seconds_total{}': '61',
      'pressure_cpu_stalled_seconds_total{}': '62',
      'pressure_memory_waiting_seconds_total{}': '63',
      'pressure_memory_stalled_seconds_total{}': '64',
      'pressure_io_waiting_seconds_total{}': '65',
      'pressure_io_stalled_seconds_total{}': '66',
    });
  });

  it('tell nothing of what is unknown', () => {
    expect(samples({ deviceName: FULL.deviceName })).toEqual({});
    const unlimited = { ...CGROUP, memory: { ...CGROUP.memory, limitBytes: undefined } };
    expect(samples({ ...FULL, cgroup: unlimited })).toMatchObject({
      'spec_memory_limit_bytes{}': '0',
      'spec_memory_swap_limit_bytes{}': '0',
    });
    const names = Object.keys(
      samples({
        ...FULL,
        cgroup: {
          ...CGROUP,
          psi: undefined,
          io: [],
          memory: { ...CGROUP.memory, swapUsageBytes: undefined },
        },
        filesystem: undefined as never,
      }),
    ).join();
    expect(names).not.toMatch(/pressure|\bfs_|blkio|memory_swap\{/);
  });

  it('tell of no throttling without a quota', () => {
    const unlimited = { ...CGROUP, cpuLimits: { ...CGROUP.cpuLimits, cpuQuota: -1n } };
    expect(Object.keys(samples({ ...FULL, cgroup: unlimited })).join()).not.toMatch(/cfs|spec_cpu_quota/);
  });
});

describe('what the kubelet gets', () => {
  it.each([0n, 1n, 127n, 128n, 2n ** 31n - 1n, 2n ** 31n, 2n ** 53n + 1n, MAX64])(
    'keeps %d whole',
    (value) => {
      const cgroup = { ...CGROUP, memory: { ...CGROUP.memory, rssBytes: value } };
      expect(samples({ cgroup, deviceName: FULL.deviceName })['memory_rss{}']).toBe(String(value));
    },
  );

  it('keeps text of any length and script', () => {
    const base = ['/ä/€/🚢', 'x'.repeat(127), 'x'.repeat(128), 'y'.repeat(20_000), '', 'default'];
    const series: Series = { base, timestampNs: 1n, measured: FULL };
    const got = received({
      sandboxId: 's'.repeat(64),
      pod: [series],
      containers: [{ ...series, containerId: 'c'.repeat(64) }],
    });
    expect(got.pod_sandbox_id).toBe('s'.repeat(64));
    expect(got.container_metrics[0]?.container_id).toBe('c'.repeat(64));
    expect(got.metrics[0]?.label_values.slice(0, 6)).toEqual(base);
    expect(got.container_metrics[0]?.metrics).toEqual(got.metrics);
  });

  it('has a descriptor for each name, whose label keys are as many as each sample’s values', () => {
    const descriptors = new Map(toDescriptors().map((d) => [d.name, d]));
    expect(descriptors.size).toBe(families.length);
    const series: Series = { base: BASE, timestampNs: CGROUP.timestampNs, measured: FULL };
    const { pod_sandbox_id, metrics } = received({
      sandboxId: 'sb1',
      pod: [series],
      containers: [],
    });
    expect(pod_sandbox_id).toBe('sb1');
    expect(new Set(metrics.map(({ name }) => name))).toEqual(new Set(descriptors.keys()));
    for (const { name, label_values, timestamp, metric_type } of metrics) {
      expect(descriptors.get(name)?.label_keys, name).toHaveLength(label_values.length);
      expect(label_values.slice(0, 6)).toEqual(BASE);
      expect(timestamp).toBe('1700000000123456789');
      expect(metric_type).toBe(
        name !== 'container_fs_inodes_total' && /(_total|failcnt)$/.test(name) ? 'COUNTER' : 'GAUGE',
      );
    }
  });
});
