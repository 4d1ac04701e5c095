import { describe, expect, it } from 'vitest';
import type { CgroupUsage } from '../../../cgroups/types.ts';
import { cgroupsOf, podCgroups } from '../../../src/stats/pod-cgroup.ts';
import { sumUsage } from '../../../src/stats/sum.ts';
import { nodeSwapBytes, swapAvailableBytes } from '../../../src/stats/swap.ts';
import { sandbox } from '../cri/records.ts';
import { sandboxConfig } from '../spec/configs.ts';

const pod = (id: string, name: string, parent: string, attempt = 0) =>
  sandbox({
    id,
    config: sandboxConfig({
      metadata: { name, namespace: 'default', uid: name, attempt },
      cgroupParent: parent,
    }),
    cgroup: { path: `${parent}/${id}`, parent: parent || '/berth', cgroupsPath: '' },
  });

describe('podCgroups', () => {
  it('finds the parent that is one pod’s, also when the pod has an earlier sandbox in it', () => {
    const all = [pod('1', 'a', '/kubepods/a'), pod('2', 'a', '/kubepods/a', 1), pod('3', 'b', '/kubepods/b')];
    expect(all.map(podCgroups(all))).toEqual(['/kubepods/a', '/kubepods/a', '/kubepods/b']);
  });

  it('finds none that several share, in whatever order they come, nor the default one', () => {
    const all = [
      ...[pod('1', 'a', '/x'), pod('2', 'b', '/x'), pod('3', 'a', '/x', 1)],
      ...[pod('4', 'c', ''), pod('5', 'd', '/')],
    ];
    expect(new Set(all.map(podCgroups(all)))).toEqual(new Set([undefined]));
    expect(new Set(all.map(podCgroups(all.toReversed())))).toEqual(new Set([undefined]));
  });
});

describe('cgroupsOf', () => {
  const containers = ['/berth/c1', '/berth/c2'].map((path) => ({
    cgroup: { path, parent: '/berth', cgroupsPath: path },
  }));

  it('counts what is in a guest once, with the guest', () => {
    const one = { ...pod('1', 'a', ''), pause: { pid: 7, startTime: 1n } };
    expect(cgroupsOf(one, containers, () => true)).toEqual([one.cgroup.path]);
    expect(cgroupsOf(one, containers, () => false)).toEqual([one.cgroup.path, '/berth/c1', '/berth/c2']);
    expect(cgroupsOf(pod('1', 'a', ''), containers, () => false)).toEqual(['/berth/c1', '/berth/c2']);
  });
});

describe('sumUsage', () => {
  const part = (n: bigint, swapUsageBytes?: bigint): CgroupUsage => ({
    timestampNs: n,
    cpu: { usageNs: n },
    memory: {
      usageBytes: n + 1n,
      limitBytes: n,
      workingSetBytes: n + 2n,
      rssBytes: n + 3n,
      cacheBytes: n + 4n,
      availableBytes: n,
      pageFaults: n + 5n,
      majorPageFaults: n + 6n,
      swapUsageBytes,
      swapLimitBytes: n,
    },
    psi: { cpu: undefined, memory: undefined, io: undefined },
  });

  it('adds what can be added', () => {
    expect(sumUsage([part(10n, 1n), part(20n, 2n)])).toEqual({
      timestampNs: 10n,
      cpu: { usageNs: 30n },
      memory: {
        usageBytes: 32n,
        limitBytes: undefined,
        workingSetBytes: 34n,
        rssBytes: 36n,
        cacheBytes: 38n,
        availableBytes: undefined,
        pageFaults: 40n,
        majorPageFaults: 42n,
        swapUsageBytes: 3n,
        swapLimitBytes: undefined,
      },
      psi: undefined,
    });
  });

  it('knows not what one part does not tell', () => {
    expect(sumUsage([part(10n, 1n), part(20n)])?.memory.swapUsageBytes).toBeUndefined();
    expect(sumUsage([])).toBeUndefined();
  });
});

describe('swapAvailableBytes', () => {
  it.each([
    ['up to the limit', 10n, 100n, 1000n, 90n],
    ['no more than the node has', 10n, 2n ** 64n - 1n, 1000n, 990n],
    ['without a limit, what the node has', 10n, undefined, 1000n, 990n],
    ['none on a node without swap', 0n, undefined, 0n, 0n],
    ['none when a smaller limit came later', 10n, 5n, 1000n, 0n],
    ['unknown without accounting', undefined, 5n, 1000n, undefined],
    ['unknown when nobody says', 10n, undefined, undefined, undefined],
  ])('is %s', (_name, swapUsageBytes, swapLimitBytes, node, expected) => {
    expect(swapAvailableBytes({ swapUsageBytes, swapLimitBytes }, node)).toBe(expected);
  });

  it('takes the node’s swap from the kernel', () => {
    expect(nodeSwapBytes()).toBeTypeOf('bigint');
  });
});
