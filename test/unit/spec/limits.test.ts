import { describe, expect, test } from 'vitest';
import type { Resources } from '../../../cgroups/types.ts';
import { deviceNumbers, findDevices, planDevices } from '../../../src/spec/devices.ts';
import { parseOci, stringifyOci } from '../../../src/spec/json.ts';
import { specResources } from '../../../src/spec/resources.ts';
import { podSysctls } from '../../../src/spec/sysctl.ts';
import type { SpecDevice } from '../../../src/spec/types.ts';
import { hostFacts, sandboxConfig } from './configs.ts';

const GIB = 1024n ** 3n;

describe('specResources', () => {
  const of = (r: Resources, over = {}) => specResources(r, [], hostFacts(over));

  test.each<[string, Resources, object]>([
    ['nothing', {}, {}],
    ['zeros mean unset', { cpuShares: 0n, memoryLimitBytes: 0n, pidsLimit: 0n, cpusetCpus: '' }, {}],
    [
      'cpu',
      { cpuShares: 512n, cpuQuota: -1n, cpuPeriod: 100_000n, cpusetCpus: '0-1', cpusetMems: '0' },
      {
        cpu: { shares: 512n, quota: -1n, period: 100_000n, cpus: '0-1', mems: '0' },
        unified: { 'cpu.weight': '59' },
      },
    ],
    [
      'memory alone allows no swap',
      { memoryLimitBytes: GIB },
      { memory: { limit: GIB, swap: GIB }, unified: { 'memory.swap.max': '0' } },
    ],
    [
      'memory and swap',
      { memoryLimitBytes: GIB, memorySwapLimitBytes: 2n * GIB },
      { memory: { limit: GIB, swap: 2n * GIB }, unified: { 'memory.swap.max': `${GIB}` } },
    ],
    [
      'what the caller says of a file wins',
      { cpuShares: 1024n, unified: { 'cpu.weight': '7' } },
      { cpu: { shares: 1024n }, unified: { 'cpu.weight': '7' } },
    ],
    [
      'the rest',
      {
        pidsLimit: 100n,
        hugepageLimits: [{ pageSize: '2MB', limitBytes: 0n }],
        unified: { 'memory.oom.group': '1' },
      },
      {
        pids: { limit: 100n },
        hugepageLimits: [{ pageSize: '2MB', limit: 0n }],
        unified: { 'memory.oom.group': '1' },
      },
    ],
  ])('%s', (_name, r, wanted) => {
    expect(of(r)).toEqual({ devices: [], pids: { limit: -1n }, ...wanted });
  });

  test('v1 gets no files of v2', () => {
    const v1 = of({ cpuShares: 512n, memoryLimitBytes: GIB }, { unifiedCgroups: false });
    expect(v1).not.toHaveProperty('unified');
  });

  test('limits without their controller are left out', () => {
    const r = { memoryLimitBytes: GIB, hugepageLimits: [{ pageSize: '2MB', limitBytes: 0n }] };
    expect(of(r, { swapAccounting: false, hugetlb: false })).toEqual({
      devices: [],
      memory: { limit: GIB },
      pids: { limit: -1n },
    });
  });

  test('files of v2 are refused on v1', () => {
    expect(() => of({ unified: { 'memory.high': '1' } }, { unifiedCgroups: false })).toThrow(
      /config\.linux\.resources\.unified/,
    );
  });
});

test('64-bit integers pass through JSON exactly', () => {
  const max = 9223372036854775807n;
  expect(stringifyOci({ limit: max, n: 1, list: [-1n] })).toBe(
    '{"limit":9223372036854775807,"n":1,"list":[-1]}',
  );
  expect(parseOci('{"a":18446744073709551615,"b":2,"c":1.5,"d":"9"}')).toEqual({
    a: 18446744073709551615n,
    b: 2,
    c: 1.5,
    d: '9',
  });
});

describe('podSysctls', () => {
  const own = {};
  /** Of a pod that shares these namespaces with the node. */
  const sysctls = (name: string, shared: { network?: 'node'; ipc?: 'node' }) => {
    const { security } = sandboxConfig();
    const namespaces = { ...security.namespaces, ...shared };
    return podSysctls({ sysctls: { [name]: '1' }, security: { ...security, namespaces } });
  };

  test.each([
    ['net.core.somaxconn', 'net.core.somaxconn'],
    ['net/ipv4/conf/eth0.100/rp_filter', 'net.ipv4.conf.eth0/100.rp_filter'],
    ['kernel.shm_rmid_forced', 'kernel.shm_rmid_forced'],
    ['fs.mqueue.msg_max', 'fs.mqueue.msg_max'],
  ])('%s', (given, name) => {
    expect(sysctls(given, own)).toEqual({ [name]: '1' });
  });

  test.each([
    ['kernel.panic', own, /is not kept per namespace/],
    ['kernel.shmfoo', own, /is not kept per namespace/],
    ['net.ipv4.ip_forward', { network: 'node' as const }, /the node's network/],
    ['kernel.sem', { ipc: 'node' as const }, /the node's IPC/],
    ['net.a/../../kernel.panic', own, /not the name/],
    ['net/../kernel/panic', own, /not the name/],
    ['', own, /not the name/],
    ['net.a b', own, /not the name/],
  ])('%j is refused', (name, owned, message) => {
    expect(() => sysctls(name, owned)).toThrow(message);
    expect(() => sysctls(name, owned)).toThrow(/^config\.linux\.sysctls\[/);
  });
});

describe('devices', () => {
  const fuse: SpecDevice = {
    path: '/dev/fuse',
    type: 'c',
    major: 10,
    minor: 229,
    fileMode: 0o666,
    uid: 0,
    gid: 0,
  };
  const kvm: SpecDevice = { ...fuse, path: '/dev/kvm', minor: 232 };

  test('only what was asked for is allowed', () => {
    expect(planDevices([{ device: fuse, permissions: 'rw' }], false, [kvm])).toEqual({
      devices: [fuse],
      rules: [
        { allow: false, access: 'rwm' },
        { allow: true, type: 'c', major: 10, minor: 229, access: 'rw' },
      ],
    });
  });

  test('privileged: all of the host, with what was asked for in its place', () => {
    const other = { ...kvm, path: '/dev/fuse' };
    expect(planDevices([{ device: other, permissions: 'r' }], true, [fuse, kvm])).toEqual({
      devices: [kvm, other],
      rules: [{ allow: true, access: 'rwm' }],
    });
  });

  test('device numbers beyond 8 bits', () => {
    expect(deviceNumbers(0x0103)).toEqual({ major: 1, minor: 3 });
    expect(deviceNumbers(0xfd12345)).toEqual({ major: 0x123, minor: 0xfd45 });
  });

  test('finds a device of the host, and names the field of what is none', async () => {
    const ask = (hostPath: string, permissions = 'rw') =>
      findDevices([{ hostPath, containerPath: '/dev/x', permissions }]);
    expect(await ask('/dev/null')).toMatchObject([
      { device: { path: '/dev/x', type: 'c', major: 1, minor: 3 }, permissions: 'rw' },
    ]);
    await expect(ask('/etc/passwd')).rejects.toThrow(
      /^config\.devices\[0\]\.host_path: \/etc\/passwd is no device/,
    );
    await expect(ask('/dev/nonesuch')).rejects.toThrow(/^config\.devices\[0\]\.host_path: ENOENT/);
    await expect(ask('dev')).rejects.toThrow(/absolute/);
    await expect(ask('/dev/null', 'x')).rejects.toThrow(/config\.devices\[0\]\.permissions/);
  });
});
