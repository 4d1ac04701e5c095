import { describe, expect, test } from 'vitest';
import type { ContainerConfig, ContainerSecurity } from '../../../src/container/config.ts';
import { buildContainerSpec } from '../../../src/spec/container.ts';
import { cgroup2Options, goArchOf, kernelVersion, readHostFacts } from '../../../src/spec/host.ts';
import { buildSandboxSpec, type SandboxSpecInput } from '../../../src/spec/sandbox.ts';
import { parseSeccompProfile } from '../../../src/spec/seccomp.ts';
import type { SpecDevice } from '../../../src/spec/types.ts';
import {
  containerConfig,
  containerInput,
  DEFAULT_CAPS,
  hostFacts,
  namespaces,
  sandboxConfig,
} from './configs.ts';

const FILTER = parseSeccompProfile('{"defaultAction":"SCMP_ACT_ALLOW"}', 'p');

describe('buildSandboxSpec', () => {
  const input = (over: Partial<SandboxSpecInput> = {}): SandboxSpecInput => ({
    id: 'sb1',
    config: sandboxConfig(),
    namespaces: { net: '/ns/net', uts: '/ns/uts', ipc: '/ns/ipc' },
    cgroupsPath: '/pods/sb1',
    pauseBinary: '/usr/bin/catatonit',
    rootfs: '/sb/rootfs',
    host: hostFacts({ minOomScoreAdj: -1000 }),
    seccomp: undefined,
    selinux: {},
    allowedAnnotations: [],
    ...over,
  });

  test('an ordinary pod', () => {
    expect(buildSandboxSpec(input())).toMatchObject({
      process: {
        user: { uid: 65_535, gid: 65_535 },
        args: ['/pause', '-P'],
        capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
        noNewPrivileges: true,
        oomScoreAdj: -998,
      },
      root: { path: '/sb/rootfs', readonly: true },
      hostname: 'web',
      annotations: {
        'io.kubernetes.cri.container-type': 'sandbox',
        'io.kubernetes.cri.sandbox-id': 'sb1',
        'io.kubernetes.cri.sandbox-name': 'web',
        'io.kubernetes.cri.sandbox-namespace': 'default',
      },
      linux: {
        namespaces: [
          { type: 'mount' },
          { type: 'network', path: '/ns/net' },
          { type: 'uts', path: '/ns/uts' },
          { type: 'ipc', path: '/ns/ipc' },
          { type: 'pid' },
        ],
        cgroupsPath: '/pods/sb1',
        resources: {
          devices: [{ allow: false, access: 'rwm' }],
          cpu: { shares: 2n },
          pids: { limit: -1n },
          unified: { 'cpu.weight': '1' },
        },
      },
    });
  });

  test("the node's namespaces are not listed, and the node is not renamed", () => {
    const all = namespaces({ network: 'node', pid: 'node', ipc: 'node' });
    const spec = buildSandboxSpec(input({ config: sandboxConfig({}, { namespaces: all }), namespaces: {} }));
    expect(spec.linux.namespaces).toEqual([{ type: 'mount' }]);
    expect(spec).not.toHaveProperty('hostname');
  });

  test('user, sysctls, filter and the lowest allowed oom_score_adj', () => {
    const config = sandboxConfig(
      { sysctls: { 'net.core.somaxconn': '9' } },
      { runAsUser: 7n, runAsGroup: 8n },
    );
    const spec = buildSandboxSpec(
      input({ config, seccomp: FILTER, host: hostFacts({ minOomScoreAdj: 200 }) }),
    );
    expect(spec.process.user).toEqual({ uid: 7, gid: 8, additionalGids: [8] });
    expect(spec.linux.sysctl).toEqual({ 'net.core.somaxconn': '9' });
    expect(spec.linux.seccomp?.defaultAction).toBe('SCMP_ACT_ALLOW');
    expect(spec.process.oomScoreAdj).toBe(200);
  });

  test("sysctls of a network that is the node's are refused", () => {
    const config = sandboxConfig(
      { sysctls: { 'net.core.somaxconn': '9' } },
      { namespaces: namespaces({ network: 'node' }) },
    );
    expect(() => buildSandboxSpec(input({ config, namespaces: { ipc: '/ns/ipc' } }))).toThrow(
      /config\.linux\.sysctls/,
    );
  });
});

describe('buildContainerSpec', () => {
  const build = (over: Partial<ContainerConfig> = {}, sc: Partial<ContainerSecurity> = {}, rest = {}) =>
    buildContainerSpec(containerInput({ config: containerConfig(over, sc), ...rest }));

  test('an ordinary container', async () => {
    const spec = await build({ envs: [{ key: 'A', value: '1' }] }, { maskedPaths: ['/proc/kcore'] });
    const { mounts, ...rest } = spec;
    expect(mounts).toHaveLength(10);
    expect(rest).toEqual({
      ociVersion: '1.0.2',
      process: {
        terminal: false,
        user: { uid: 0, gid: 0, additionalGids: [0], umask: 0o022 },
        args: ['/bin/app', 'serve'],
        env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOSTNAME=web', 'A=1'],
        cwd: '/',
        capabilities: {
          bounding: DEFAULT_CAPS,
          effective: DEFAULT_CAPS,
          permitted: DEFAULT_CAPS,
          inheritable: [],
          ambient: [],
        },
        noNewPrivileges: false,
        oomScoreAdj: 0,
      },
      root: { path: '/snap/rootfs', readonly: false },
      annotations: {
        'io.kubernetes.cri.container-type': 'container',
        'io.kubernetes.cri.container-name': 'app',
        'io.kubernetes.cri.image-name': 'shop/app:1',
        'io.kubernetes.cri.sandbox-id': 'sb1',
        'io.kubernetes.cri.sandbox-name': 'web',
        'io.kubernetes.cri.sandbox-namespace': 'default',
        'io.kubernetes.cri.sandbox-uid': '7d3f',
      },
      linux: {
        namespaces: [
          { type: 'mount' },
          { type: 'network', path: '/ns/net' },
          { type: 'uts', path: '/ns/uts' },
          { type: 'ipc', path: '/ns/ipc' },
          { type: 'pid' },
          { type: 'cgroup' },
        ],
        cgroupsPath: '/pods/c1',
        resources: { devices: [{ allow: false, access: 'rwm' }], pids: { limit: -1n } },
        maskedPaths: ['/proc/kcore'],
        readonlyPaths: [],
      },
    });
  });

  test.each([
    ['container', undefined, { type: 'pid' }],
    ['pod', '/proc/7/ns/pid', { type: 'pid', path: '/proc/7/ns/pid' }],
    ['target', '/proc/8/ns/pid', { type: 'pid', path: '/proc/8/ns/pid' }],
    ['node', undefined, undefined],
  ] as const)('PID namespace mode %s', async (pid, path, entry) => {
    const spec = await build({}, { namespaces: namespaces({ pid }) }, { namespaces: { pid: path } });
    expect(spec.linux.namespaces.find((n) => n.type === 'pid')).toEqual(entry);
  });

  test('a shared PID namespace that is not given is a fault, not a fresh one', async () => {
    await expect(build({}, { namespaces: namespaces({ pid: 'pod' }) })).rejects.toThrow(/no PID namespace/);
  });

  test('privileged: everything that the daemon has, nothing hidden', async () => {
    const node: SpecDevice = {
      path: '/dev/loop0',
      type: 'b',
      major: 7,
      minor: 0,
      fileMode: 0o660,
      uid: 0,
      gid: 6,
    };
    const sc = { privileged: true, maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'] };
    const host = hostFacts();
    const spec = await build({}, sc, { hostDevices: [node], seccomp: FILTER, host });
    expect(new Set(spec.process.capabilities.bounding)).toEqual(host.caps);
    expect(spec.linux).toMatchObject({
      maskedPaths: [],
      readonlyPaths: [],
      devices: [node],
      resources: { devices: [{ allow: true, access: 'rwm' }] },
    });
    expect(spec.linux).not.toHaveProperty('seccomp');
    expect(spec.linux.namespaces.map((n) => n.type)).not.toContain('cgroup');
    expect(spec.mounts.find((m) => m.destination === '/sys/fs/cgroup')?.options).toContain('nsdelegate');
  });

  test('no cgroup namespace on v1', async () => {
    const spec = await build({}, {}, { host: hostFacts({ unifiedCgroups: false }) });
    expect(spec.linux.namespaces.map((n) => n.type)).not.toContain('cgroup');
  });

  test('oom_score_adj goes no lower than the daemon may', async () => {
    expect((await build({ oomScoreAdj: -997n })).process.oomScoreAdj).toBe(0);
    expect((await build({ oomScoreAdj: 500n })).process.oomScoreAdj).toBe(500);
    const host = hostFacts({ minOomScoreAdj: -1000 });
    expect((await build({ oomScoreAdj: -997n }, {}, { host })).process.oomScoreAdj).toBe(-997);
  });

  test('switches of the security context', async () => {
    const spec = await build({ tty: true }, { noNewPrivs: true, readonlyRootfs: true }, { seccomp: FILTER });
    expect(spec.process).toMatchObject({ terminal: true, noNewPrivileges: true });
    expect(spec.root.readonly).toBe(true);
    expect(spec.linux.seccomp?.defaultAction).toBe('SCMP_ACT_ALLOW');
  });

  test('SELinux labels are those of the process and of its mounts', async () => {
    const selinux = { process: 'u:r:p:s0', mount: 'u:r:m:s0' };
    const spec = await build({}, {}, { selinux });
    expect(spec.process.selinuxLabel).toBe('u:r:p:s0');
    expect(spec.linux.mountLabel).toBe('u:r:m:s0');
    const none = await build();
    expect([none.process, none.linux].flatMap(Object.keys)).not.toEqual(
      expect.arrayContaining(['selinuxLabel']),
    );
    expect(none.linux).not.toHaveProperty('mountLabel');
  });

  test('the AppArmor profile is that of the process', async () => {
    expect((await build({}, {}, { apparmor: 'k8s-x' })).process.apparmorProfile).toBe('k8s-x');
    expect((await build()).process).not.toHaveProperty('apparmorProfile');
  });
});

describe('facts of the host', () => {
  test('kernel, architecture, options of the cgroup2 mount', () => {
    expect(kernelVersion('6.1.0-18-amd64')).toEqual([6, 1]);
    expect(goArchOf('x64')).toBe('amd64');
    expect(goArchOf('arm64')).toBe('arm64');
    const line =
      '30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot';
    expect(cgroup2Options(`1 0 0:1 / / rw - ext4 x rw\n${line}`)).toEqual([
      'nsdelegate',
      'memory_recursiveprot',
    ]);
    expect(cgroup2Options('30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,nsdelegate')).toEqual([]);
  });

  test('this host has some', async () => {
    const facts = await readHostFacts({ unifiedCgroups: false, swapAccounting: false, hugetlb: false });
    expect(facts.kernel[0]).toBeGreaterThanOrEqual(4);
    expect(facts.minOomScoreAdj === -1000).toBe(facts.caps.has('CAP_SYS_RESOURCE'));
  });
});
