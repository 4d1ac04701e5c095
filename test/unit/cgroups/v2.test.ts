import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type CgroupManager, detectCgroups, weightToShares } from '../../../cgroups/index.ts';

const fixture = fileURLToPath(new URL('../../fixtures/cgroup-v2-from-docs', import.meta.url));
const CGROUP2 = 0x63677270;
let root = '';
let manager: CgroupManager;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'berth-cgroup2-'));
  cpSync(fixture, root, { recursive: true });
  const cgroups = detectCgroups({ root, mountinfoPath: '/nonexistent', fsType: () => CGROUP2 });
  expect(cgroups.mode).toBe('v2');
  manager = cgroups.manager('cgroupfs');
});
afterEach(() => {
  manager.retain([]);
  rmSync(root, { recursive: true });
});

const file = (name: string) => readFileSync(join(root, name), 'utf8');
const put = (name: string, text: string) => writeFileSync(join(root, name), text);

describe('stats', () => {
  it('of a cgroup with limits', () => {
    const stats = manager.details('/pod', []);
    const { cpu, memory, psi } = stats ?? {};
    expect(manager.usage('/pod')).toMatchObject({ cpu, memory, psi });
    expect(stats).toMatchObject({
      cpu: {
        usageNs: 9_007_199_254_740_993_000n,
        userNs: 9_007_199_254_000_000_000n,
        systemNs: 740_993_000n,
        nrPeriods: 120n,
        nrThrottled: 30n,
        throttledNs: 4_500_000_000n,
      },
      memory: {
        usageBytes: 209_715_200n,
        limitBytes: 268_435_456n,
        workingSetBytes: 209_715_200n - 83_886_080n,
        rssBytes: 104_857_600n,
        cacheBytes: 94_371_840n,
        availableBytes: 268_435_456n - (209_715_200n - 83_886_080n),
        pageFaults: 51_234n,
        majorPageFaults: 12n,
        swapUsageBytes: 1_048_576n,
        swapLimitBytes: 134_217_728n,
      },
      pids: { current: 5n, limit: 1024n },
      io: [
        { major: 8, minor: 16, readBytes: 1_459_200n, writeBytes: 314_773_504n, reads: 192n, writes: 353n },
        { major: 8, minor: 0, readBytes: 90_430_464n, writeBytes: 299_008_000n, reads: 8950n, writes: 1252n },
      ],
      oomKills: 3n,
    });
    expect(stats?.psi?.memory).toEqual({
      some: { avg10: 1.5, avg60: 0.75, avg300: 0.1, totalNs: 58_761_459_000n },
      full: { avg10: 0, avg60: 0.12, avg300: 0, totalNs: 7000n },
    });
  });

  it('of one without: unlimited and unknown are undefined, nothing is negative', () => {
    expect(manager.details('/plain', [])).toMatchObject({
      cpu: { usageNs: 1_500_000n, nrPeriods: undefined, throttledNs: undefined },
      memory: {
        limitBytes: undefined,
        availableBytes: undefined,
        swapUsageBytes: undefined,
        swapLimitBytes: undefined,
        workingSetBytes: 0n,
      },
      pids: { current: undefined, limit: undefined },
      psi: undefined,
      oomKills: 0n,
    });
    expect(manager.details('/absent', [])).toBeUndefined();
    expect(manager.usage('/absent')).toBeUndefined();
    expect(manager.details('/absent', [])).toBeUndefined();
  });

  it('has in its details what metrics want', async () => {
    put('pod/memory.peak', '300000000\n');
    put('pod/memory.low', '1048576\n');
    put('pod/hugetlb.2MB.current', '4194304\n');
    put('pod/cgroup.procs', '12\n7\n');
    expect(manager.cpuUsageNs('/pod')).toBe(manager.details('/pod', [])?.cpu.usageNs);
    expect(manager.tasks('/pod')).toBe(manager.details('/pod', [])?.pids.current);
    expect(manager.details('/pod', ['2MB', '1GB'])).toMatchObject({
      ...manager.details('/pod', []),
      timestampNs: expect.any(BigInt),
      memoryDetails: {
        kernelBytes: 10_485_760n,
        mappedFileBytes: 4096n,
        activeFileBytes: 10_485_760n,
        inactiveFileBytes: 83_886_080n,
        maxUsageBytes: 300_000_000n,
        limitHits: 7n,
        reservationBytes: 1_048_576n,
      },
      hugepages: [{ pageSize: '2MB', usageBytes: 4_194_304n }],
      cpuLimits: { cpuQuota: 50_000n },
      processes: [7, 12],
    });
    put('pod/memory.low', '0\n');
    // A limit is not read each time, but after it was set.
    expect(manager.details('/pod', [])?.memoryDetails.reservationBytes).toBe(1_048_576n);
    await manager.update('/pod', {});
    expect(manager.details('/pod', [])?.memoryDetails.reservationBytes).toBeUndefined();
  });
});

describe('a cgroup captured on a host with systemd', () => {
  const captured = fileURLToPath(new URL('../../fixtures/cgroup-v2-captured', import.meta.url));

  it('gives neutral figures', () => {
    const cgroups = detectCgroups({ root: captured, mountinfoPath: '/nonexistent', fsType: () => CGROUP2 });
    const host = cgroups.manager('cgroupfs');
    expect(host.details('/pod', ['2MB'])).toMatchObject({
      cpu: {
        usageNs: 6_262_602_000n,
        userNs: 3_180_020_000n,
        systemNs: 3_082_582_000n,
        nrPeriods: 328n,
        nrThrottled: 302n,
        throttledNs: 24_012_968_000n,
      },
      cpuLimits: { cpuQuota: 20_000n, cpuPeriod: 100_000n },
      memory: {
        usageBytes: 42_573_824n,
        limitBytes: 67_108_864n,
        workingSetBytes: 42_573_824n - 42_037_248n,
        rssBytes: 258_048n,
        cacheBytes: 42_078_208n,
        availableBytes: 67_108_864n - (42_573_824n - 42_037_248n),
        pageFaults: 846n,
        majorPageFaults: 2n,
        swapUsageBytes: 0n,
        swapLimitBytes: 33_554_432n,
      },
      memoryDetails: {
        kernelBytes: 360_448n,
        mappedFileBytes: 36_864n,
        maxUsageBytes: 42_897_408n,
        limitHits: 0n,
        reservationBytes: 1_048_576n,
      },
      pids: { current: 3n, limit: 64n },
      io: [
        {
          ...{ major: 254, minor: 0, reads: 165n, writes: 40n },
          ...{ readBytes: 42_078_208n, writeBytes: 41_943_040n },
        },
      ],
      psi: {
        cpu: {
          some: { avg10: 74.47, avg60: 31.18, avg300: 7.81, totalNs: 24_789_666_000n },
          full: { avg10: 74.18, totalNs: 24_632_787_000n },
        },
        memory: { some: { avg10: 0, totalNs: 0n } },
        io: { full: { avg60: 1.13, totalNs: 1_220_455_000n } },
      },
      hugepages: [],
      oomKills: 0n,
      processes: [274, 282],
    });
    expect(host.readResources('/pod')).toMatchObject({
      cpuShares: weightToShares(59n),
      cpusetCpus: '0',
      cpusetMems: '0',
      memoryLimitBytes: 67_108_864n,
      memorySwapLimitBytes: 67_108_864n + 33_554_432n,
      pidsLimit: 64n,
    });
    host.retain([]);
  });
});

describe('resources', () => {
  it('are read in CRI’s terms: shares, and swap counted with memory', () => {
    expect(manager.readResources('/pod')).toMatchObject({
      cpuShares: 1024n,
      cpuQuota: 50_000n,
      cpuPeriod: 100_000n,
      cpusetCpus: '0-3',
      cpusetMems: undefined,
      memoryLimitBytes: 268_435_456n,
      memorySwapLimitBytes: 268_435_456n + 134_217_728n,
      pidsLimit: 1024n,
    });
    expect(manager.readResources('/plain')).toMatchObject({ memoryLimitBytes: -1n, cpuQuota: undefined });
  });

  it('are written in v2’s terms', async () => {
    // A cgroup file takes each write whole; these regular ones keep what a shorter write does not reach.
    for (const f of ['cpu.weight', 'cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'])
      put(`pod/${f}`, '');
    const size = 512n << 20n;
    await manager.update('/pod', {
      cpuShares: 1024n,
      cpuQuota: 20_000n,
      cpuPeriod: 50_000n,
      memoryLimitBytes: size,
      memorySwapLimitBytes: size,
      pidsLimit: -1n,
      hugepageLimits: [{ pageSize: '2MB', limitBytes: 0n }],
    });
    expect(
      ['cpu.weight', 'cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'].map((f) => file(`pod/${f}`)),
    ).toEqual(['100', '20000 50000', `${size}`, '0', 'max']);
    expect(existsSync(join(root, 'pod/hugetlb.2MB.max'))).toBe(false);
  });

  it('keep quota or period when only the other is given', async () => {
    await manager.update('/pod', { cpuQuota: -1n });
    expect(file('pod/cpu.max').startsWith('max 100000')).toBe(true);
  });

  it('refuse memory below the working set, but not below what can be dropped', async () => {
    const refused = manager.update('/pod', { memoryLimitBytes: 100n << 20n, cpuShares: 2n });
    await expect(refused).rejects.toMatchObject({ code: 'EBUSY' });
    expect(file('pod/cpu.weight')).toBe('100\n');
    await manager.update('/pod', { memoryLimitBytes: 150n << 20n });
    expect(file('pod/memory.max').trim()).toBe(`${150n << 20n}`);
  });

  it('refuse memory and swap below memory', async () => {
    await expect(manager.update('/pod', { memorySwapLimitBytes: 1n })).rejects.toMatchObject({
      code: 'EINVAL',
    });
  });

  it('let unified keys win, one write a line, and refuse what is no limit', async () => {
    put('pod/cpu.weight', '');
    await manager.update('/pod', { cpuShares: 1024n, unified: { 'cpu.weight': '777' } });
    expect(file('pod/cpu.weight')).toBe('777');
    for (const key of ['cgroup.procs', 'cgroup.kill', '../x', 'a/b.c', 'memory', '']) {
      await expect(manager.update('/pod', { unified: { [key]: '1' } })).rejects.toMatchObject({
        code: 'EINVAL',
      });
    }
    await expect(manager.update('/pod', { unified: { 'rdma.max': '1' } })).rejects.toMatchObject({
      code: 'ENOENT',
      path: join(root, 'pod/rdma.max'),
    });
  });
});

describe('create', () => {
  it('hands down every controller that is not yet, and is repeatable', async () => {
    put('cgroup.controllers', 'cpu memory pids\n');
    put('cgroup.subtree_control', 'cpu pids\n');
    expect(manager.missing('/new/leaf')).toEqual([join(root, 'new'), join(root, 'new/leaf')]);
    await manager.create('/new/leaf');
    expect(manager.missing('/new/leaf')).toEqual([]);
    expect(file('cgroup.subtree_control').startsWith('+memory')).toBe(true);
    await manager.create('/new/leaf');
  });
});

describe('dump', () => {
  it('has every file that can be read', () => {
    writeFileSync(join(root, 'pod/cgroup.kill'), '', { mode: 0o200 });
    const cgroups = detectCgroups({ root, mountinfoPath: '/nonexistent', fsType: () => CGROUP2 });
    const [dump, ...others] = cgroups.dump('/pod/');
    expect([dump?.directory, others]).toEqual([join(root, 'pod'), []]);
    expect(dump?.files).toMatchObject({ 'memory.max': '268435456', 'pids.current': '5' });
    expect(dump?.files['cpu.stat']).toMatch(/^usage_usec \d+\n.*\d$/s);
    expect(dump?.files).not.toHaveProperty(['cgroup.kill']);
    expect(cgroups.dump('/absent')).toEqual([]);
    expect(() => cgroups.dump('/../etc')).toThrow('must not contain');
  });
});

describe('procs', () => {
  it('collects the subtree, each process once', () => {
    mkdirSync(join(root, 'pod/a/b'), { recursive: true });
    put('pod/cgroup.procs', '30\n10\n0\n');
    put('pod/a/cgroup.procs', '');
    put('pod/a/b/cgroup.procs', '20\n10\n');
    expect(manager.procs('/pod')).toEqual([10, 20, 30]);
  });
});
