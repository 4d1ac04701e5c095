import { describe, expect, it } from 'vitest';
import { fromSandboxConfig, toPodSandbox, toPodSandboxStatus } from '../../../cri/mapping/sandbox.ts';
import type { PodSandboxConfig } from '../../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import type { SandboxRecord } from '../../../src/sandbox/record.ts';
import { namespaces, sandboxConfig } from '../spec/configs.ts';
import { answered, received, unsetFields } from './messages.ts';
import { sandbox } from './records.ts';

const MAX = '9223372036854775807';

/** Every field set, each to a value of its own. */
const FULL: PodSandboxConfig = {
  metadata: { name: 'web', uid: 'u-1', namespace: 'shop', attempt: 4_294_967_295 },
  hostname: 'web-0',
  log_directory: '/var/log/pods/web',
  dns_config: { servers: ['10.0.0.10'], searches: ['shop.svc'], options: ['ndots:5'] },
  port_mappings: [{ protocol: 'SCTP', container_port: 80, host_port: 8080, host_ip: '127.0.0.1' }],
  labels: { app: 'web' },
  annotations: { note: 'a' },
  linux: {
    cgroup_parent: '/kubepods/pod1',
    sysctls: { 'net.core.somaxconn': '1024' },
    overhead: { cpu_shares: '10', memory_limit_in_bytes: '20' },
    resources: { cpu_quota: '-1', memory_limit_in_bytes: MAX },
    security_context: {
      namespace_options: {
        network: 'NODE',
        pid: 'CONTAINER',
        ipc: 'NODE',
        target_id: 'other',
        userns_options: {
          mode: 'POD',
          uids: [{ host_id: 100_000, container_id: 1, length: 65_536 }],
          gids: [{ host_id: 200_000, container_id: 2, length: 4_294_967_295 }],
        },
      },
      selinux_options: { user: 'u', role: 'r', type: 't', level: 'l' },
      run_as_user: { value: MAX },
      run_as_group: { value: '9007199254740993' },
      readonly_rootfs: true,
      supplemental_groups: [MAX, '-9223372036854775808'],
      supplemental_groups_policy: 'Strict',
      privileged: true,
      seccomp: { profile_type: 'Localhost', localhost_ref: '/seccomp.json' },
      apparmor: { profile_type: 'Unconfined', localhost_ref: 'aa' },
      seccomp_profile_path: 'unconfined',
    },
  },
};

const config = (over: PodSandboxConfig | null) =>
  fromSandboxConfig(received('RunPodSandbox', { config: over }).config);
/** A config that is valid but for what `over` sets. */
const minimal = (over: PodSandboxConfig = {}) => config({ metadata: { name: 'a' }, ...over });
const secured = (security_context: NonNullable<PodSandboxConfig['linux']>['security_context']) =>
  minimal({ linux: { security_context: security_context ?? null } }).security;

describe('fromSandboxConfig', () => {
  it('takes every field', () => {
    // Windows pods and resources have no place here; the other resource fields are resources.test.ts's.
    const sent = received('RunPodSandbox', { config: FULL }).config;
    expect(unsetFields(sent, /^windows|^linux\.(overhead|resources)\./)).toEqual([]);
    expect(fromSandboxConfig(sent)).toEqual({
      metadata: { name: 'web', uid: 'u-1', namespace: 'shop', attempt: 4_294_967_295 },
      hostname: 'web-0',
      logDirectory: '/var/log/pods/web',
      dns: { servers: ['10.0.0.10'], searches: ['shop.svc'], options: ['ndots:5'] },
      portMappings: [{ protocol: 'SCTP', containerPort: 80, hostPort: 8080, hostIp: '127.0.0.1' }],
      labels: { app: 'web' },
      annotations: { note: 'a' },
      cgroupParent: '/kubepods/pod1',
      sysctls: { 'net.core.somaxconn': '1024' },
      overhead: { cpuShares: 10n, memoryLimitBytes: 20n },
      resources: { cpuQuota: -1n, memoryLimitBytes: 9_223_372_036_854_775_807n },
      security: {
        namespaces: {
          network: 'node',
          pid: 'container',
          ipc: 'node',
          targetId: 'other',
          user: {
            mode: 'pod',
            uids: [{ hostId: 100_000, containerId: 1, length: 65_536 }],
            gids: [{ hostId: 200_000, containerId: 2, length: 4_294_967_295 }],
          },
        },
        selinux: { user: 'u', role: 'r', type: 't', level: 'l' },
        runAsUser: 9_223_372_036_854_775_807n,
        runAsGroup: 9_007_199_254_740_993n,
        readonlyRootfs: true,
        supplementalGroups: [9_223_372_036_854_775_807n, -9_223_372_036_854_775_808n],
        supplementalGroupsPolicy: 'strict',
        privileged: true,
        seccomp: { type: 'localhost', localhostRef: '/seccomp.json' },
        apparmor: { type: 'unconfined', localhostRef: 'aa' },
      },
    });
  });

  it('takes absent messages for the defaults of CRI', () => {
    expect(minimal()).toEqual({
      metadata: { name: 'a', uid: '', namespace: '', attempt: 0 },
      hostname: '',
      logDirectory: '',
      portMappings: [],
      labels: {},
      annotations: {},
      cgroupParent: '',
      sysctls: {},
      security: {
        namespaces: namespaces({ pid: 'pod' }),
        readonlyRootfs: false,
        supplementalGroups: [],
        supplementalGroupsPolicy: 'merge',
        privileged: false,
        seccomp: { type: 'unconfined', localhostRef: '' },
      },
    });
    expect(minimal({ linux: { security_context: {} } })).toEqual(minimal());
  });

  it('tells an empty dns_config from none, and user 0 from no user', () => {
    expect(minimal({ dns_config: {} }).dns).toEqual({ servers: [], searches: [], options: [] });
    expect(minimal()).not.toHaveProperty('dns');
    expect(secured({ run_as_user: { value: '0' } }).runAsUser).toBe(0n);
    expect(secured({})).not.toHaveProperty('runAsUser');
  });

  it.each<[PodSandboxConfig | null, string]>([
    [null, 'config: is required'],
    [{}, 'config.metadata: is required'],
    [
      { metadata: {}, port_mappings: [{}, { protocol: 9 as never }] },
      'config.port_mappings[1].protocol: 9 is none of TCP, UDP, SCTP',
    ],
    [
      { metadata: {}, linux: { security_context: { namespace_options: { network: 'CONTAINER' } } } },
      'config.linux.security_context.namespace_options.network: CONTAINER is none of POD, NODE',
    ],
    [
      { metadata: {}, linux: { security_context: { namespace_options: { pid: 7 as never } } } },
      'config.linux.security_context.namespace_options.pid: 7 is none of POD, CONTAINER, NODE, TARGET',
    ],
    [
      { metadata: {}, linux: { security_context: { namespace_options: { ipc: 'TARGET' } } } },
      'config.linux.security_context.namespace_options.ipc: TARGET is none of POD, NODE',
    ],
    [
      { metadata: {}, linux: { security_context: { supplemental_groups_policy: 2 as never } } },
      'config.linux.security_context.supplemental_groups_policy: 2 is none of Merge, Strict',
    ],
    [
      { metadata: {}, linux: { security_context: { seccomp: { profile_type: 3 as never } } } },
      'config.linux.security_context.seccomp.profile_type: 3 is none of RuntimeDefault, Unconfined, Localhost',
    ],
  ])('refuses %j', (bad, message) => {
    expect(() => config(bad)).toThrow(expect.objectContaining({ kind: 'invalid', message }));
  });

  it.each([
    ['POD', 'pod'],
    ['NODE', 'node'],
  ] as const)('reads network and IPC mode %s', (mode, expected) => {
    const { namespaces } = secured({ namespace_options: { network: mode, ipc: mode } });
    expect([namespaces.network, namespaces.ipc]).toEqual([expected, expected]);
  });

  it.each([
    ['POD', 'pod'],
    ['CONTAINER', 'container'],
    ['NODE', 'node'],
    ['TARGET', 'target'],
  ] as const)('reads PID mode %s', (mode, expected) => {
    expect(secured({ namespace_options: { pid: mode } }).namespaces.pid).toBe(expected);
  });

  it.each([
    ['a mode without mappings is the zero value', { mode: 'POD' as const }, 'node'],
    ['the node’s', { mode: 'NODE' as const, uids: [{ length: 1 }] }, 'node'],
    ['one of its own', { mode: 'POD' as const, uids: [{ length: 1 }] }, 'pod'],
  ])('reads the user namespace: %s', (_name, userns_options, mode) => {
    expect(secured({ namespace_options: { userns_options } }).namespaces.user.mode).toBe(mode);
  });

  it.each([
    ['', { type: 'unconfined', localhostRef: '' }],
    ['unconfined', { type: 'unconfined', localhostRef: '' }],
    ['runtime/default', { type: 'runtimeDefault', localhostRef: '' }],
    ['docker/default', { type: 'runtimeDefault', localhostRef: '' }],
    ['localhost/a/b.json', { type: 'localhost', localhostRef: 'a/b.json' }],
  ])('reads the deprecated seccomp_profile_path %j', (path, expected) => {
    expect(secured({ seccomp_profile_path: path }).seccomp).toEqual(expected);
  });

  it.each([
    ['RuntimeDefault', 'runtimeDefault'],
    ['Unconfined', 'unconfined'],
    ['Localhost', 'localhost'],
  ] as const)('reads profile type %s, which precedes the deprecated path', (profile_type, type) => {
    const { seccomp } = secured({ seccomp: { profile_type }, seccomp_profile_path: 'localhost/x' });
    expect(seccomp).toEqual({ type, localhostRef: '' });
  });
});

/** The record of a pod with two more addresses. */
const record = (over: Partial<SandboxRecord> = {}) =>
  sandbox({
    config: sandboxConfig({ labels: { app: 'web' }, annotations: { note: 'a' } }),
    runtimeHandler: 'runc',
    createdAt: BigInt(MAX),
    ips: ['10.0.0.2', 'fd00::2', 'fd01::2'],
    ...over,
  });

describe('toPodSandboxStatus', () => {
  it('tells everything', () => {
    const full = record({
      stoppedAt: 1n,
      config: sandboxConfig(
        {
          metadata: { name: 'web', namespace: 'shop', uid: 'u-1', attempt: 4 },
          labels: { app: 'web' },
          annotations: { note: 'a' },
        },
        { namespaces: namespaces({ network: 'node', pid: 'target', ipc: 'node', targetId: 'c1' }) },
      ),
    });
    expect(answered.podSandboxStatus({ status: toPodSandboxStatus(full) }).status).toEqual({
      id: 'sb1',
      metadata: { name: 'web', namespace: 'shop', uid: 'u-1', attempt: 4 },
      state: 'SANDBOX_NOTREADY',
      created_at: MAX,
      network: { ip: '10.0.0.2', additional_ips: [{ ip: 'fd00::2' }, { ip: 'fd01::2' }] },
      linux: {
        namespaces: {
          options: { network: 'NODE', pid: 'TARGET', ipc: 'NODE', target_id: 'c1', userns_options: null },
        },
      },
      labels: { app: 'web' },
      annotations: { note: 'a' },
      runtime_handler: 'runc',
    });
  });

  it('has an empty address with the host’s network, not no network', () => {
    const { status } = answered.podSandboxStatus({ status: toPodSandboxStatus(record({ ips: [] })) });
    expect(status?.network).toEqual({ ip: '', additional_ips: [] });
    expect(status?.state).toBe('SANDBOX_READY');
  });

  it('agrees with the list’s item', () => {
    const { items } = answered.listPodSandbox({ items: [toPodSandbox(record())] });
    expect(unsetFields(items, /attempt|state$/)).toEqual([]);
    expect(toPodSandboxStatus(record())).toMatchObject(toPodSandbox(record()));
  });

  it.each([
    ['pod', 'POD'],
    ['container', 'CONTAINER'],
    ['node', 'NODE'],
  ] as const)('names PID mode %s as CRI does', (pid, expected) => {
    const one = record({ config: sandboxConfig({}, { namespaces: namespaces({ pid }) }) });
    expect(toPodSandboxStatus(one).linux?.namespaces?.options).toMatchObject({
      network: 'POD',
      ipc: 'POD',
      pid: expected,
    });
  });
});
