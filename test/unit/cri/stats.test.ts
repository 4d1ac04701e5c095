import { describe, expect, it } from 'vitest';
import type { CgroupUsage, Psi } from '../../../cgroups/types.ts';
import { toFilesystemUsage, toImage } from '../../../cri/mapping/image.ts';
import { toContainerStats, toPodSandboxStats } from '../../../cri/mapping/stats.ts';
import type { ContainerStats } from '../../../src/stats/container-stats.ts';
import type { SandboxStats } from '../../../src/stats/sandbox-stats.ts';
import type { InterfaceCounters } from '../../../src/sys/namespaces.ts';
import { containerConfig, imageConfig, sandboxConfig } from '../spec/configs.ts';
import { answered, unsetFields } from './messages.ts';
import { container, sandbox } from './records.ts';

const MAX64 = 18_446_744_073_709_551_615n;

const psi = (base: number): Psi => ({
  some: { avg10: base + 0.25, avg60: base + 0.5, avg300: base + 0.75, totalNs: BigInt(base) },
  full: { avg10: base + 1.25, avg60: base + 1.5, avg300: base + 1.75, totalNs: MAX64 },
});
const message = (base: number) => ({
  Some: { Total: String(base), Avg10: base + 0.25, Avg60: base + 0.5, Avg300: base + 0.75 },
  Full: { Total: String(MAX64), Avg10: base + 1.25, Avg60: base + 1.5, Avg300: base + 1.75 },
});

const CGROUP: CgroupUsage = {
  timestampNs: 1_700_000_000_123_456_789n,
  cpu: { usageNs: MAX64 },
  memory: {
    usageBytes: 101n,
    limitBytes: 102n,
    workingSetBytes: 103n,
    rssBytes: 104n,
    cacheBytes: 105n,
    availableBytes: 106n,
    pageFaults: 107n,
    majorPageFaults: 108n,
    swapUsageBytes: 9n,
    swapLimitBytes: 9_007_199_254_741_002n,
  },
  psi: { cpu: psi(10), memory: psi(20), io: psi(30) },
};

const record = container({
  config: containerConfig({
    metadata: { name: 'app', attempt: 3 },
    labels: { l: '1' },
    annotations: { n: '2' },
  }),
});

const READ: ContainerStats = {
  record,
  cgroup: CGROUP,
  usageNanoCores: undefined,
  swapAvailableBytes: undefined,
  writableLayer: undefined,
};

const stats = (over: Partial<ContainerStats> = {}) =>
  answered.containerStats({ stats: toContainerStats({ ...READ, ...over }, '/images') }).stats;

describe('toContainerStats', () => {
  it('tells everything', () => {
    const full = stats({
      usageNanoCores: 109n,
      swapAvailableBytes: 9_007_199_254_740_993n,
      writableLayer: { timestampNs: 1_700_000_000_000_000_001n, usedBytes: 110n, inodesUsed: 111n },
    });
    expect(unsetFields(full)).toEqual([]);
    const timestamp = '1700000000123456789';
    expect(full).toEqual({
      attributes: {
        id: 'c1',
        metadata: { name: 'app', attempt: 3 },
        labels: { l: '1' },
        annotations: { n: '2' },
      },
      cpu: {
        timestamp,
        usage_core_nano_seconds: { value: String(MAX64) },
        usage_nano_cores: { value: '109' },
        psi: message(10),
      },
      memory: {
        timestamp,
        working_set_bytes: { value: '103' },
        available_bytes: { value: '106' },
        usage_bytes: { value: '101' },
        rss_bytes: { value: '104' },
        page_faults: { value: '107' },
        major_page_faults: { value: '108' },
        psi: message(20),
      },
      swap: {
        timestamp,
        swap_usage_bytes: { value: '9' },
        swap_available_bytes: { value: '9007199254740993' },
      },
      io: { timestamp, psi: message(30) },
      writable_layer: {
        timestamp: '1700000000000000001',
        fs_id: { mountpoint: '/images' },
        used_bytes: { value: '110' },
        inodes_used: { value: '111' },
      },
    });
  });

  it('leaves out what is unknown instead of calling it 0', () => {
    const unknown = Object.fromEntries(Object.keys(CGROUP.memory).map((key) => [key, undefined]));
    const bare = stats({
      cgroup: {
        ...CGROUP,
        cpu: { ...CGROUP.cpu, usageNs: undefined },
        memory: unknown as unknown as CgroupUsage['memory'],
        psi: undefined,
      },
    });
    expect(bare?.cpu).toMatchObject({ usage_core_nano_seconds: null, usage_nano_cores: null, psi: null });
    const { timestamp, ...memory } = bare?.memory ?? { timestamp: '' };
    expect(timestamp).not.toBe('0');
    expect(new Set(Object.values(memory))).toEqual(new Set([null]));
    expect(bare?.swap).toMatchObject({ swap_usage_bytes: null, swap_available_bytes: null });
    expect(bare?.io?.psi).toBeNull();
    expect(bare?.writable_layer).toBeNull();
  });

  it('tells a measured 0', () => {
    const memory = { ...CGROUP.memory, majorPageFaults: 0n };
    expect(stats({ cgroup: { ...CGROUP, memory } })?.memory?.major_page_faults).toEqual({ value: '0' });
    expect(stats({ usageNanoCores: 0n })?.cpu?.usage_nano_cores).toEqual({ value: '0' });
  });

  it('has no "full" line where the kernel writes none', () => {
    const cpu = { some: psi(10).some, full: undefined };
    const got = stats({ cgroup: { ...CGROUP, psi: { cpu, memory: psi(20), io: undefined } } });
    expect(got?.cpu?.psi).toEqual({ Some: message(10).Some, Full: null });
    expect(got?.io?.psi).toBeNull();
  });
});

describe('toPodSandboxStats', () => {
  const eth = (name: string, base: bigint): InterfaceCounters => ({
    name,
    rxBytes: MAX64,
    rxPackets: 0n,
    rxErrors: base + 1n,
    rxDropped: 0n,
    txBytes: base + 2n,
    txPackets: 0n,
    txErrors: base + 3n,
    txDropped: 0n,
  });
  const pod = (over: Partial<SandboxStats> = {}) =>
    answered.podSandboxStats({
      stats: toPodSandboxStats(
        {
          record: sandbox({
            config: sandboxConfig({ labels: { l: '1' }, annotations: { n: '2' } }),
          }),
          cgroup: CGROUP,
          usageNanoCores: 109n,
          processes: 7n,
          network: {
            timestampNs: 1_700_000_000_000_000_002n,
            standard: eth('eth0', 10n),
            interfaces: [eth('eth0', 10n), eth('net1', 20n)],
          },
          containers: [READ],
          ...over,
        },
        '/images',
      ),
    }).stats;
  const usage = (name: string, base: number) => ({
    name,
    rx_bytes: { value: String(MAX64) },
    rx_errors: { value: String(base + 1) },
    tx_bytes: { value: String(base + 2) },
    tx_errors: { value: String(base + 3) },
  });

  it('tells everything', () => {
    const got = pod();
    expect(got?.attributes).toEqual({
      id: 'sb1',
      metadata: { name: 'web', namespace: 'default', uid: '7d3f', attempt: 0 },
      labels: { l: '1' },
      annotations: { n: '2' },
    });
    expect(got?.windows).toBeNull();
    const timestamp = '1700000000123456789';
    expect(got?.linux).toMatchObject({
      cpu: { timestamp, usage_nano_cores: { value: '109' }, psi: message(10) },
      memory: { timestamp, working_set_bytes: { value: '103' }, psi: message(20) },
      network: {
        timestamp: '1700000000000000002',
        default_interface: usage('eth0', 10),
        interfaces: [usage('eth0', 10), usage('net1', 20)],
      },
      process: { timestamp, process_count: { value: '7' } },
      io: { timestamp, psi: message(30) },
      containers: [{ attributes: { id: 'c1', metadata: { name: 'app' } } }],
    });
  });

  it('has `linux` always, and leaves out what is unknown', () => {
    const got = pod({ usageNanoCores: undefined, processes: undefined, network: undefined, containers: [] });
    expect(got?.linux).toMatchObject({
      cpu: { usage_nano_cores: null },
      network: null,
      process: { process_count: null },
      containers: [],
    });
  });
});

describe('toImage', () => {
  const image = {
    id: 'sha256:1',
    repoTags: ['a/b:1', 'a/b:2'],
    repoDigests: ['a/b@sha256:9'],
    size: MAX64,
    config: imageConfig(),
    chainIds: [],
    pinned: true,
  };
  const mapped = (user: string) =>
    answered.imageStatus({ image: toImage({ ...image, config: imageConfig({ user }) }) }).image;

  it('tells everything', () => {
    expect(mapped('web')).toMatchObject({
      id: 'sha256:1',
      repo_tags: ['a/b:1', 'a/b:2'],
      repo_digests: ['a/b@sha256:9'],
      size: String(MAX64),
      spec: { image: 'sha256:1' },
      pinned: true,
    });
  });

  // The kubelet's runAsNonRoot check reads the number, else the name; an image without a user runs as root.
  it.each([
    ['', null, ''],
    ['0', '0', ''],
    ['1000:33', '1000', ''],
    ['4294967294', '4294967294', ''],
    ['www', null, 'www'],
    ['www:www', null, 'www'],
    ['10x', null, '10x'],
  ])('reads user %j', (user, uid, username) => {
    const got = mapped(user);
    expect([got?.uid?.value ?? null, got?.username]).toEqual([uid, username]);
  });
});

describe('toFilesystemUsage', () => {
  it('tells everything without loss', () => {
    const usage = {
      timestamp: 9_223_372_036_854_775_807n,
      mountpoint: '/i',
      usedBytes: MAX64,
      inodesUsed: 7n,
    };
    const { image_filesystems } = answered.imageFsInfo({ image_filesystems: [toFilesystemUsage(usage)] });
    expect(image_filesystems).toEqual([
      {
        timestamp: '9223372036854775807',
        fs_id: { mountpoint: '/i' },
        used_bytes: { value: String(MAX64) },
        inodes_used: { value: '7' },
      },
    ]);
  });
});
