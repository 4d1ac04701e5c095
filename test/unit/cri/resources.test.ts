import { describe, expect, it } from 'vitest';
import { fromResources, toResources } from '../../../cri/mapping/resources.ts';
import type { LinuxContainerResources } from '../../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import { loadProtos } from '../../../proto/load.ts';
import { unsetFields } from './messages.ts';

const { requestSerialize, requestDeserialize } = loadProtos().runtimeService.UpdateContainerResources;
const received = (linux: LinuxContainerResources | null) =>
  requestDeserialize(requestSerialize({ linux })).linux;

const FULL: LinuxContainerResources = {
  cpu_period: '100000',
  cpu_quota: '50000',
  cpu_shares: '512',
  memory_limit_in_bytes: '9223372036854775807',
  oom_score_adj: '-998',
  cpuset_cpus: '0-3,8',
  cpuset_mems: '1',
  hugepage_limits: [
    { page_size: '2MB', limit: '18446744073709551615' },
    { page_size: '1GB', limit: '9007199254740993' },
  ],
  unified: { 'memory.high': '1000' },
  memory_swap_limit_in_bytes: '9007199254740993',
};

describe('fromResources', () => {
  it('takes every field but oom_score_adj, which is no cgroup’s', () => {
    const sent = received(FULL);
    expect(unsetFields(sent)).toEqual([]);
    expect(fromResources(sent)).toEqual({
      cpuPeriod: 100_000n,
      cpuQuota: 50_000n,
      cpuShares: 512n,
      memoryLimitBytes: 9_223_372_036_854_775_807n,
      cpusetCpus: '0-3,8',
      cpusetMems: '1',
      hugepageLimits: [
        { pageSize: '2MB', limitBytes: 18_446_744_073_709_551_615n },
        { pageSize: '1GB', limitBytes: 9_007_199_254_740_993n },
      ],
      unified: { 'memory.high': '1000' },
      memorySwapLimitBytes: 9_007_199_254_740_993n,
    });
  });

  it.each([
    ['no message', null],
    ['zeros and empty texts', {}],
  ])('gives nothing for %s', (_name, message) => {
    // toStrictEqual: a key with undefined would be "given" to those who spread it.
    expect(fromResources(received(message))).toStrictEqual({});
  });

  it('keeps -1, which lifts a limit, and a hugepage limit of 0, which forbids them', () => {
    expect(
      fromResources(
        received({
          cpu_quota: '-1',
          memory_limit_in_bytes: '-1',
          memory_swap_limit_in_bytes: '-9223372036854775808',
          hugepage_limits: [{ page_size: '2MB' }],
        }),
      ),
    ).toStrictEqual({
      cpuQuota: -1n,
      memoryLimitBytes: -1n,
      memorySwapLimitBytes: -9_223_372_036_854_775_808n,
      hugepageLimits: [{ pageSize: '2MB', limitBytes: 0n }],
    });
  });
});

describe('toResources', () => {
  it('is the way back', () => {
    expect(received(toResources(fromResources(received(FULL)), -998n))).toEqual(received(FULL));
    expect(received(toResources({}, 0n))).toEqual(received({}));
  });
});
