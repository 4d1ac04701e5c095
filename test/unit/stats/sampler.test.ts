import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CgroupManager, CgroupUsage } from '../../../cgroups/types.ts';
import { OpenFileCounts } from '../../../src/metrics/open-files.ts';
import { containerStats, listContainerStats } from '../../../src/stats/container-stats.ts';
import { GuestFigures } from '../../../src/stats/guest-figures.ts';
import { Readings } from '../../../src/stats/readings.ts';
import { Sampler } from '../../../src/stats/sampler.ts';
import { WritableLayerUsage } from '../../../src/stats/writable-layer-usage.ts';
import { fakeServices } from '../recover/services.ts';

const exit = { code: 0, finishedAt: 9n, reason: 'Completed', message: '' };

let fake: ReturnType<typeof fakeServices>;
let layerUsage: WritableLayerUsage;
const cgroups = {
  usage: vi.fn(
    (_path: string) => ({ timestampNs: 5n, cpu: { usageNs: 1n }, memory: {} }) as CgroupUsage | undefined,
  ),
  cpuUsageNs: vi.fn((_path: string): bigint | undefined => 1n),
  retain: vi.fn((_paths: Iterable<string>) => {}),
};
const cgroup = (at: string) => ({ path: at, parent: '/p', cgroupsPath: at });
beforeEach(() => {
  fake = fakeServices();
  layerUsage = new WritableLayerUsage(fake.s.log);
  fake.addSandbox({ cgroup: cgroup('/p/sb1') });
  vi.clearAllMocks();
});
afterEach(async () => {
  await layerUsage.close();
  fake.close();
});
const services = () =>
  Object.assign(
    { readings: new Readings(cgroups, 10_000), layerUsage, openFiles: new OpenFileCounts() },
    { guests: new GuestFigures({ ...cgroups, exists: () => true }, fake.s.log) },
    fake.s,
    { cgroups: cgroups as unknown as CgroupManager },
  );

describe('Sampler', () => {
  it('reads each running container’s counter and each pod’s once a round', async () => {
    fake.addContainer({ id: 'a', cgroup: cgroup('/p/a') });
    fake.addContainer({ id: 'b', cgroup: cgroup('/p/b'), exit });
    fake.addContainer({ id: 'c', cgroup: cgroup('/p/c'), phase: 'removing' });
    const sampler = new Sampler(services(), 1_000_000);
    await Promise.all([sampler.sample(), sampler.sample()]);
    expect(cgroups.cpuUsageNs.mock.calls.map(([at]) => at)).toEqual(['/p/sb1', '/p/a']);
    await sampler.sample();
    expect(sampler.cost).toMatchObject({ rounds: 2, cgroups: 2 });
    expect(cgroups.retain).toHaveBeenLastCalledWith(new Set(['/p/sb1', '/p/a']));
    expect(sampler.cost.seconds).toBeGreaterThan(0);
    await sampler.close();
  });

  it('goes on with the others when one cannot be read', async () => {
    for (const id of ['a', 'b']) fake.addContainer({ id, cgroup: cgroup(`/p/${id}`) });
    cgroups.cpuUsageNs.mockImplementationOnce(() => {
      throw new Error('broken');
    });
    const sampler = new Sampler(services(), 1_000_000);
    await sampler.sample();
    expect(cgroups.cpuUsageNs).toHaveBeenCalledTimes(3);
    expect(fake.machine.logged).toMatchObject([{ level: 'warn', fields: { reason: 'broken' } }]);
    await sampler.close();
  });
});

describe('containerStats', () => {
  it('leaves out a container whose cgroup goes, or whose end comes on record, while it is read', async () => {
    const s = services();
    const [a, b, c] = ['a', 'b', 'c'].map((id) => fake.addContainer({ id, cgroup: cgroup(`/p/${id}`) }));
    if (a === undefined || b === undefined || c === undefined) throw new Error('unreachable');
    cgroups.usage.mockImplementation((at) => {
      if (at === '/p/b') fake.s.containers.update('b', { exit });
      return at === '/p/a'
        ? undefined
        : ({ timestampNs: 5n, cpu: { usageNs: 1n }, memory: {} } as CgroupUsage);
    });
    expect((await listContainerStats(s, [a, b, c])).map(({ record }) => record.id)).toEqual(['c']);
    expect(await containerStats(s, a)).toBeUndefined();
    expect(await containerStats(s, b)).toBeUndefined();
    expect(await containerStats(s, c)).toMatchObject({ record: { id: 'c' } });
  });
});

describe('WritableLayerUsage', () => {
  it('counts blocks and inodes, a file with two names once, and keeps the answer a while', async () => {
    const { upper } = fake.s.paths.container('a');
    mkdirSync(path.join(upper, 'dir'), { recursive: true });
    writeFileSync(path.join(upper, 'dir/file'), Buffer.alloc(100_000, 1));
    const { linkSync } = await import('node:fs');
    linkSync(path.join(upper, 'dir/file'), path.join(upper, 'again'));
    const first = await layerUsage.of('a', { path: upper, baseBytes: 0n });
    expect(first?.inodesUsed).toBe(3n);
    expect(Number(first?.usedBytes)).toBeGreaterThanOrEqual(100_000);
    expect(Number(first?.usedBytes)).toBeLessThan(180_000);
    writeFileSync(path.join(upper, 'more'), 'x');
    expect(await layerUsage.of('a', { path: upper, baseBytes: 0n })).toBe(first);
    layerUsage.retain(new Set(['other']));
    expect((await layerUsage.of('a', { path: upper, baseBytes: 0n }))?.inodesUsed).toBe(4n);
  });

  it('knows of a layer that is not there that it takes nothing', async () => {
    expect(await layerUsage.of('x', { path: '/nonexistent/upper', baseBytes: 0n })).toMatchObject({
      usedBytes: 0n,
      inodesUsed: 0n,
    });
  });
});
