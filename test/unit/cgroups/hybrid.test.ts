import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CgroupManager, detectCgroups } from '../../../cgroups/index.ts';
import * as cpu from '../../../cgroups/v1/cpu.ts';
import * as hugetlb from '../../../cgroups/v1/hugetlb.ts';
import * as io from '../../../cgroups/v1/io.ts';
import * as memory from '../../../cgroups/v1/memory.ts';

const root = fileURLToPath(new URL('../../fixtures/cgroup-hybrid-captured', import.meta.url));
const TMPFS = 0x01021994;
const dir = mkdtempSync(join(tmpdir(), 'berth-cgroup-'));
afterAll(() => rmSync(dir, { recursive: true }));

function mountinfo(controllers: readonly string[], unified = true): string {
  const lines = controllers.map(
    (c, i) => `${i + 30} 20 0:${i + 30} / ${root}/${c} rw - cgroup cgroup rw,${c}`,
  );
  if (unified) lines.push(`60 20 0:60 / ${root}/unified rw - cgroup2 cgroup2 rw`);
  const path = join(dir, `mountinfo-${controllers.length}-${unified}`);
  writeFileSync(path, lines.join('\n'));
  return path;
}

describe('a cgroup captured on a hybrid host', () => {
  let manager: CgroupManager;
  beforeAll(() => {
    const mountinfoPath = mountinfo(['cpu', 'cpuacct', 'cpuset', 'memory', 'pids', 'blkio']);
    const cgroups = detectCgroups({ root, mountinfoPath, fsType: () => TMPFS });
    expect(cgroups.mode).toBe('hybrid');
    manager = cgroups.manager('cgroupfs');
  });

  it('gives neutral stats, with pressure from the v2 side', () => {
    const stats = manager.details('/pod', []);
    const { cpu, memory, psi } = stats ?? {};
    expect(manager.cpuUsageNs('/pod')).toBe(cpu?.usageNs);
    expect(manager.usage('/pod')).toMatchObject({ cpu: { usageNs: cpu?.usageNs }, memory, psi });
    expect(stats).toMatchObject({
      cpu: {
        usageNs: 187_924_665n,
        userNs: 108_000_000n,
        systemNs: 88_000_000n,
        nrPeriods: 11n,
        nrThrottled: 8n,
        throttledNs: 623_512_617n,
      },
      memory: {
        usageBytes: 42_606_592n,
        limitBytes: 268_435_456n,
        workingSetBytes: 42_606_592n - 42_033_152n,
        rssBytes: 110_592n,
        cacheBytes: 42_053_632n,
        availableBytes: 268_435_456n - (42_606_592n - 42_033_152n),
        pageFaults: 524n,
        majorPageFaults: 1n,
        swapUsageBytes: 0n,
        swapLimitBytes: 402_653_184n - 268_435_456n,
      },
      pids: { current: 1n, limit: 64n },
      io: [],
      oomKills: 0n,
    });
    expect(stats?.psi?.cpu?.some).toEqual({ avg10: 2.22, avg60: 0.47, avg300: 0.1, totalNs: 326_921_000n });
    expect(stats?.psi?.io?.full?.totalNs).toBe(16_101_000n);
  });

  it('reads its limits back', () => {
    expect(manager.readResources('/pod')).toEqual({
      cpuShares: 512n,
      cpuPeriod: 100_000n,
      cpuQuota: 20_000n,
      cpusetCpus: '0-1',
      cpusetMems: '0',
      memoryLimitBytes: 268_435_456n,
      memorySwapLimitBytes: 402_653_184n,
      pidsLimit: 64n,
    });
  });

  it('is read the same on a host without the v2 tree, but for pressure', () => {
    const all = ['cpu', 'cpuacct', 'cpuset', 'memory', 'pids', 'blkio'];
    const cgroups = detectCgroups({ root, mountinfoPath: mountinfo(all, false), fsType: () => TMPFS });
    expect(cgroups.mode).toBe('v1');
    const { timestampNs: _, psi, ...stats } = manager.details('/pod', []) ?? {};
    expect(psi).toBeDefined();
    const v1 = cgroups.manager('cgroupfs');
    expect(v1.details('/pod', [])).toMatchObject({ ...stats, psi: undefined });
    expect(v1.readResources('/pod')).toEqual(manager.readResources('/pod'));
    v1.retain([]);
  });

  it('says nothing of an absent cgroup', () => {
    expect(manager.exists('/absent')).toBe(false);
    expect(manager.details('/absent', [])).toBeUndefined();
    expect(manager.usage('/absent')).toBeUndefined();
    expect(manager.cpuUsageNs('/absent')).toBeUndefined();
    expect(manager.tasks('/absent')).toBeUndefined();
    expect(manager.oomKills('/absent')).toBeUndefined();
    expect(manager.procs('/absent')).toEqual([]);
    expect(manager.readResources('/absent')).toEqual({});
  });

  it('says unknown, not 0, where the controllers are missing', () => {
    const bare = detectCgroups({ root, mountinfoPath: mountinfo(['cpuset']), fsType: () => TMPFS }).manager(
      'cgroupfs',
    );
    const stats = bare.details('/pod', []);
    const known = [stats?.cpu, stats?.memory, stats?.pids].flatMap((part) => Object.values(part ?? {}));
    expect(known.filter((value) => value !== undefined)).toEqual([]);
    expect(stats?.oomKills).toBeUndefined();
  });

  it('names the missing controller when a limit needs it, and unified keys as v2 only', async () => {
    const bare = detectCgroups({ root, mountinfoPath: mountinfo(['cpuset']), fsType: () => TMPFS }).manager(
      'cgroupfs',
    );
    await expect(bare.update('/pod', { memoryLimitBytes: 1n })).rejects.toThrow('"memory"');
    await expect(bare.update('/pod', { unified: { 'memory.high': '1' } })).rejects.toMatchObject({
      code: 'EINVAL',
    });
  });
});

describe('v1 files', () => {
  it('tell metrics more', () => {
    const d = fill({
      'memory.stat':
        'pgfault 5\npgmajfault 6\ntotal_mapped_file 1\ntotal_active_file 2\ntotal_inactive_file 3\n',
      'memory.kmem.usage_in_bytes': '10\n',
      'memory.max_usage_in_bytes': '11\n',
      'memory.failcnt': '12\n',
      'memory.soft_limit_in_bytes': '9223372036854771712\n',
      'hugetlb.2MB.usage_in_bytes': '20\n',
      'hugetlb.2MB.max_usage_in_bytes': '21\n',
    });
    expect(memory.details(d)).toEqual({
      kernelBytes: 10n,
      mappedFileBytes: 1n,
      activeFileBytes: 2n,
      inactiveFileBytes: 3n,
      maxUsageBytes: 11n,
      limitHits: 12n,
      reservationBytes: undefined,
      ownPageFaults: 5n,
      ownMajorPageFaults: 6n,
    });
    expect(hugetlb.stats(d, ['1GB', '2MB'])).toEqual([
      { pageSize: '2MB', usageBytes: 20n, maxUsageBytes: 21n },
    ]);
  });

  const fill = (files: Record<string, string>): string => {
    const d = mkdtempSync(join(dir, 'v1-'));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(d, name), text);
    return d;
  };

  it('takes ticks where the kernel has no usage_user', () => {
    const d = fill({ 'cpuacct.usage': '5000000000\n', 'cpuacct.stat': 'user 300\nsystem 150\n' });
    expect(cpu.stats(undefined, d)).toMatchObject({ userNs: 3_000_000_000n, systemNs: 1_500_000_000n });
  });

  it('takes any page-rounded LONG_MAX for unlimited, and no memsw files for no swap accounting', () => {
    for (const none of ['9223372036854771712', '9223372036854710272']) {
      const d = fill({
        'memory.usage_in_bytes': '10\n',
        'memory.limit_in_bytes': none,
        'memory.stat': 'total_inactive_file 20\n',
      });
      expect(memory.stats(d)).toMatchObject({
        limitBytes: undefined,
        availableBytes: undefined,
        workingSetBytes: 0n,
        swapUsageBytes: undefined,
      });
      expect(memory.readResources(d)).toEqual({ memoryLimitBytes: -1n, memorySwapLimitBytes: undefined });
    }
  });

  it('limits memory alone where the kernel does not account swap', async () => {
    const d = fill({ 'memory.limit_in_bytes': '' });
    await memory.update(d, { memoryLimitBytes: 4096n, memorySwapLimitBytes: 8192n });
    expect(readFileSync(join(d, 'memory.limit_in_bytes'), 'utf8')).toBe('4096');
  });

  it('adds up reads and writes by device', () => {
    const bytes = '8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Total 12288\n253:1 Read 1\nTotal 12289\n';
    const d = fill({
      'blkio.throttle.io_service_bytes': bytes,
      'blkio.throttle.io_serviced': '8:0 Read 1\n8:0 Write 2\n',
    });
    expect(io.stats(d)).toEqual([
      { major: 8, minor: 0, readBytes: 4096n, writeBytes: 8192n, reads: 1n, writes: 2n },
      { major: 253, minor: 1, readBytes: 1n, writeBytes: 0n, reads: 0n, writes: 0n },
    ]);
  });
});

it('says that no control groups are mounted', () => {
  const empty = join(dir, 'empty');
  writeFileSync(empty, '');
  expect(() => detectCgroups({ root, mountinfoPath: empty, fsType: () => TMPFS })).toThrow(
    /no control groups are mounted/,
  );
});
