import { describe, expect, it } from 'vitest';
import {
  fromContainerConfig,
  toContainer,
  toContainerStatus,
  toState,
} from '../../../cri/mapping/container.ts';
import type { ContainerConfig } from '../../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { ContainerRecord } from '../../../src/container/record.ts';
import { signalNumber } from '../../../src/signals.ts';
import { containerConfig, mount, namespaces } from '../spec/configs.ts';
import { answered, received, unsetFields } from './messages.ts';
import { container } from './records.ts';

const MAX = '9223372036854775807';
const IMAGE = {
  image: 'sha256:1',
  annotations: { a: 'b' },
  user_specified_image: 'app:1',
  runtime_handler: 'h',
};
const DOMAIN_IMAGE = {
  image: 'sha256:1',
  annotations: { a: 'b' },
  userSpecifiedImage: 'app:1',
  runtimeHandler: 'h',
};

/** Every field set, each to a value of its own. */
const FULL: ContainerConfig = {
  metadata: { name: 'app', attempt: 4_294_967_295 },
  image: IMAGE,
  command: ['/bin/app', ''],
  args: ['serve'],
  working_dir: '/srv',
  envs: [{ key: 'GREETING', value: Buffer.from('grüße\n=') }],
  mounts: [
    {
      container_path: '/data',
      host_path: '/srv/data',
      readonly: true,
      selinux_relabel: true,
      propagation: 'PROPAGATION_BIDIRECTIONAL',
      uidMappings: [{ host_id: 1, container_id: 2, length: 3 }],
      gidMappings: [{ host_id: 4, container_id: 5, length: 6 }],
      recursive_read_only: true,
      image: IMAGE,
      image_sub_path: 'sub',
    },
  ],
  devices: [{ container_path: '/dev/a', host_path: '/dev/b', permissions: 'rwm' }],
  labels: { l: '1' },
  annotations: { n: '2' },
  log_path: 'app/0.log',
  stdin: true,
  stdin_once: true,
  tty: true,
  CDI_devices: [{ name: 'vendor.com/gpu=0' }],
  stop_signal: 'SIGRTMAXMINUS14',
  linux: {
    resources: { oom_score_adj: '-998', cpu_shares: '2' },
    security_context: {
      capabilities: {
        add_capabilities: ['NET_ADMIN'],
        drop_capabilities: ['ALL'],
        add_ambient_capabilities: ['KILL'],
      },
      privileged: true,
      namespace_options: {
        network: 'NODE',
        pid: 'TARGET',
        ipc: 'NODE',
        target_id: 'c9',
        userns_options: { mode: 'POD', uids: [{ host_id: 1, container_id: 2, length: 3 }], gids: [] },
      },
      selinux_options: { user: 'u', role: 'r', type: 't', level: 'l' },
      run_as_user: { value: MAX },
      run_as_group: { value: '-1' },
      run_as_username: 'www',
      readonly_rootfs: true,
      supplemental_groups: [MAX],
      supplemental_groups_policy: 'Strict',
      no_new_privs: true,
      masked_paths: ['/proc/kcore'],
      readonly_paths: ['/proc/sys'],
      seccomp: { profile_type: 'Localhost', localhost_ref: '/s.json' },
      apparmor: { profile_type: 'Localhost', localhost_ref: 'aa' },
      apparmor_profile: 'runtime/default',
      seccomp_profile_path: 'runtime/default',
    },
  },
};

const sent = (config: ContainerConfig | null) => received('CreateContainer', { config }).config;
const minimal = (over: ContainerConfig = {}) =>
  fromContainerConfig(sent({ metadata: { name: 'a' }, image: { image: 'i' }, ...over }));
const secured = (
  security_context: NonNullable<NonNullable<ContainerConfig['linux']>['security_context']>,
  field = {},
) => minimal({ linux: { security_context }, ...field }).security;

describe('fromContainerConfig', () => {
  it('takes every field', () => {
    const message = sent(FULL);
    expect(unsetFields(message, /^windows|^linux\.resources\.|^command\[1\]|gids$|image_ref$/)).toEqual([]);
    expect(fromContainerConfig(message)).toEqual({
      metadata: { name: 'app', attempt: 4_294_967_295 },
      image: DOMAIN_IMAGE,
      command: ['/bin/app', ''],
      args: ['serve'],
      workingDir: '/srv',
      envs: [{ key: 'GREETING', value: 'grüße\n=' }],
      mounts: [
        {
          containerPath: '/data',
          hostPath: '/srv/data',
          readonly: true,
          selinuxRelabel: true,
          propagation: 'bidirectional',
          uidMappings: [{ hostId: 1, containerId: 2, length: 3 }],
          gidMappings: [{ hostId: 4, containerId: 5, length: 6 }],
          recursiveReadOnly: true,
          image: DOMAIN_IMAGE,
          imageSubPath: 'sub',
        },
      ],
      devices: [{ containerPath: '/dev/a', hostPath: '/dev/b', permissions: 'rwm' }],
      cdiDevices: ['vendor.com/gpu=0'],
      labels: { l: '1' },
      annotations: { n: '2' },
      logPath: 'app/0.log',
      stdin: true,
      stdinOnce: true,
      tty: true,
      stopSignal: 'SIGRTMAX-14',
      resources: { cpuShares: 2n },
      oomScoreAdj: -998n,
      security: {
        capabilities: { add: ['NET_ADMIN'], drop: ['ALL'], ambient: ['KILL'] },
        privileged: true,
        namespaces: {
          network: 'node',
          pid: 'target',
          ipc: 'node',
          targetId: 'c9',
          user: { mode: 'pod', uids: [{ hostId: 1, containerId: 2, length: 3 }], gids: [] },
        },
        selinux: { user: 'u', role: 'r', type: 't', level: 'l' },
        runAsUser: 9_223_372_036_854_775_807n,
        runAsGroup: -1n,
        runAsUsername: 'www',
        readonlyRootfs: true,
        supplementalGroups: [9_223_372_036_854_775_807n],
        supplementalGroupsPolicy: 'strict',
        noNewPrivs: true,
        maskedPaths: ['/proc/kcore'],
        readonlyPaths: ['/proc/sys'],
        seccomp: { type: 'localhost', localhostRef: '/s.json' },
        apparmor: { type: 'localhost', localhostRef: 'aa' },
      },
    });
  });

  it('takes absent messages for the defaults of CRI', () => {
    expect(minimal()).toEqual(
      containerConfig(
        {
          metadata: { name: 'a', attempt: 0 },
          image: { image: 'i', userSpecifiedImage: '', annotations: {}, runtimeHandler: '' },
          logPath: '',
        },
        { namespaces: namespaces({ pid: 'pod' }) },
      ),
    );
    expect(minimal({ linux: {} })).toEqual(minimal());
    expect(minimal({ linux: { security_context: {}, resources: {} } })).toEqual(minimal());
  });

  it.each<[ContainerConfig | null, string]>([
    [null, 'config: is required'],
    [{ image: { image: 'i' } }, 'config.metadata: is required'],
    [{ metadata: {} }, 'config.image.image: is required'],
    [{ metadata: {}, image: {} }, 'config.image.image: is required'],
    [
      { metadata: {}, image: { image: 'i' }, mounts: [{}, { propagation: 3 as never }] },
      'config.mounts[1].propagation: 3 is none of PROPAGATION_PRIVATE, PROPAGATION_HOST_TO_CONTAINER, PROPAGATION_BIDIRECTIONAL',
    ],
    [
      { metadata: {}, image: { image: 'i' }, stop_signal: 200 as never },
      'config.stop_signal: there is no signal 200',
    ],
    [
      {
        metadata: {},
        image: { image: 'i' },
        linux: { security_context: { apparmor: { profile_type: 5 as never } } },
      },
      'config.linux.security_context.apparmor.profile_type: 5 is none of RuntimeDefault, Unconfined, Localhost',
    ],
  ])('refuses %j', (bad, message) => {
    expect(() => fromContainerConfig(sent(bad))).toThrow(
      expect.objectContaining({ kind: 'invalid', message }),
    );
  });

  it('refuses an environment that is no UTF-8, by its place', () => {
    const envs = [
      { key: 'A', value: Buffer.from('ok') },
      { key: 'B', value: Buffer.from([0xff]) },
    ];
    expect(() => minimal({ envs })).toThrow(
      expect.objectContaining({
        kind: 'invalid',
        message: expect.stringMatching(/^config\.envs\[1\]\.value: must be UTF-8/),
      }),
    );
  });

  it('keeps a byte order mark in the environment', () => {
    const [env] = minimal({ envs: [{ key: 'A', value: Buffer.from('\ufeffx') }] }).envs;
    expect(env?.value).toBe('\ufeffx');
  });

  it.each([
    ['PROPAGATION_PRIVATE', 'private'],
    ['PROPAGATION_HOST_TO_CONTAINER', 'hostToContainer'],
    ['PROPAGATION_BIDIRECTIONAL', 'bidirectional'],
  ] as const)('reads %s', (propagation, expected) => {
    expect(minimal({ mounts: [{ propagation }] }).mounts[0]?.propagation).toBe(expected);
  });

  it.each([
    ['SIGTERM', 'SIGTERM', 15],
    ['SIGRTMIN', 'SIGRTMIN', 34],
    ['SIGRTMINPLUS1', 'SIGRTMIN+1', 35],
    ['SIGRTMINPLUS15', 'SIGRTMIN+15', 49],
    ['SIGRTMAXMINUS1', 'SIGRTMAX-1', 63],
    ['SIGRTMAX', 'SIGRTMAX', 64],
  ] as const)('reads stop_signal %s as the kernel’s number', (stop_signal, name, number) => {
    const signal = minimal({ stop_signal }).stopSignal ?? '';
    expect(signal).toBe(name);
    expect(signalNumber(signal)).toBe(number);
  });

  it('leaves the stop signal to the image when there is none', () => {
    expect(minimal({ stop_signal: 'RUNTIME_DEFAULT' })).not.toHaveProperty('stopSignal');
  });

  it('reads the deprecated texts of profiles only where the messages are absent', () => {
    const old = secured({ apparmor_profile: 'localhost/web', seccomp_profile_path: 'localhost/s.json' });
    expect(old.apparmor).toEqual({ type: 'localhost', localhostRef: 'web' });
    expect(old.seccomp).toEqual({ type: 'localhost', localhostRef: 's.json' });
    const both = secured({ apparmor: { profile_type: 'Unconfined' }, apparmor_profile: 'localhost/web' });
    expect(both.apparmor).toEqual({ type: 'unconfined', localhostRef: '' });
  });
});

/** A container that has ended, with all that a record can hold. */
function ended(over: Partial<ContainerRecord> = {}): ContainerRecord {
  return container({
    config: containerConfig({
      metadata: { name: 'app', attempt: 2 },
      image: DOMAIN_IMAGE,
      labels: { l: '1' },
      annotations: { n: '2' },
      oomScoreAdj: 1000n,
      mounts: [
        mount({
          readonly: true,
          recursiveReadOnly: true,
          selinuxRelabel: true,
          propagation: 'hostToContainer',
          uidMappings: [{ hostId: 1, containerId: 2, length: 3 }],
          gidMappings: [{ hostId: 4, containerId: 5, length: 6 }],
          image: DOMAIN_IMAGE,
          imageSubPath: 'sub',
        }),
      ],
    }),
    imageId: 'sha256:1',
    imageVolumes: [{ mount: 0, imageId: 'sha256:vol' }],
    createdAt: 9_223_372_036_854_775_805n,
    startedAt: 9_223_372_036_854_775_806n,
    exit: { code: 137, finishedAt: 9_223_372_036_854_775_807n, reason: 'OOMKilled', message: 'why' },
    stopSignal: 'SIGRTMIN+3',
    user: { uid: 4_294_967_295, gid: 33, supplementalGroups: [7] },
    resources: {
      cpuPeriod: 1n,
      cpuQuota: -1n,
      cpuShares: 3n,
      memoryLimitBytes: 9_223_372_036_854_775_807n,
      memorySwapLimitBytes: 5n,
      cpusetCpus: '0-1',
      cpusetMems: '1',
      unified: { 'memory.high': '1' },
      hugepageLimits: [{ pageSize: '2MB', limitBytes: 18_446_744_073_709_551_615n }],
    },
    ...over,
  });
}

describe('toContainerStatus', () => {
  it('tells everything', () => {
    const { status } = answered.containerStatus({ status: toContainerStatus(ended()) });
    expect(unsetFields(status, /windows$|^image\.image_ref$/)).toEqual([]);
    expect(status).toMatchObject({
      id: 'c1',
      metadata: { name: 'app', attempt: 2 },
      state: 'CONTAINER_EXITED',
      created_at: '9223372036854775805',
      started_at: '9223372036854775806',
      finished_at: MAX,
      exit_code: 137,
      image: IMAGE,
      image_ref: 'sha256:1',
      image_id: 'sha256:1',
      reason: 'OOMKilled',
      message: 'why',
      labels: { l: '1' },
      annotations: { n: '2' },
      mounts: [
        {
          container_path: '/data',
          host_path: '/srv/data',
          readonly: true,
          selinux_relabel: true,
          propagation: 'PROPAGATION_HOST_TO_CONTAINER',
          uidMappings: [{ host_id: 1, container_id: 2, length: 3 }],
          gidMappings: [{ host_id: 4, container_id: 5, length: 6 }],
          recursive_read_only: true,
          image: { ...IMAGE, image_ref: 'sha256:vol' },
          image_sub_path: 'sub',
        },
      ],
      stop_signal: 'SIGRTMINPLUS3',
      log_path: '/var/log/pods/web/app/0.log',
      resources: {
        linux: {
          cpu_period: '1',
          cpu_quota: '-1',
          cpu_shares: '3',
          memory_limit_in_bytes: MAX,
          memory_swap_limit_in_bytes: '5',
          oom_score_adj: '1000',
          cpuset_cpus: '0-1',
          cpuset_mems: '1',
          unified: { 'memory.high': '1' },
          hugepage_limits: [{ page_size: '2MB', limit: '18446744073709551615' }],
        },
      },
      user: { linux: { uid: '4294967295', gid: '33', supplemental_groups: ['7'] } },
    });
  });

  const { startedAt: _s, exit: _e, user: _u, ...created } = ended();
  const { exit: _x, ...running } = ended();

  it('leaves times, code and user of what has not happened at zero', () => {
    const { status } = answered.containerStatus({ status: toContainerStatus(created) });
    expect(status).toMatchObject({
      state: 'CONTAINER_CREATED',
      started_at: '0',
      finished_at: '0',
      exit_code: 0,
      reason: '',
      message: '',
      user: null,
    });
  });

  it('tells root’s user as well', () => {
    const root = toContainerStatus({ ...running, user: { uid: 0, gid: 0, supplementalGroups: [] } });
    expect(root.user?.linux).toEqual({ uid: '0', gid: '0', supplemental_groups: [] });
  });

  it.each([
    ['created', created, 'CONTAINER_CREATED'],
    ['running', running, 'CONTAINER_RUNNING'],
    ['exited', ended(), 'CONTAINER_EXITED'],
    // A start that failed sets both times; one whose berthd died in between sets only the exit.
    ['exited without a start', { ...created, exit: ended().exit }, 'CONTAINER_EXITED'],
  ])('calls one that is %s so', (_name, record, state) => {
    expect(toState(record as ContainerRecord)).toBe(state);
  });

  it('agrees with the list’s item', () => {
    const item = toContainer(ended());
    const { containers } = answered.listContainers({ containers: [item] });
    expect(unsetFields(containers, /image\.image_ref$/)).toEqual([]);
    const { pod_sandbox_id, ...shared } = item;
    expect(pod_sandbox_id).toBe('sb1');
    expect(toContainerStatus(ended())).toMatchObject(shared);
  });

  it.each([
    ['private', 'PROPAGATION_PRIVATE'],
    ['hostToContainer', 'PROPAGATION_HOST_TO_CONTAINER'],
    ['bidirectional', 'PROPAGATION_BIDIRECTIONAL'],
  ] as const)('names propagation %s as CRI does', (propagation, expected) => {
    const one = ended({ config: containerConfig({ mounts: [mount({ propagation })] }) });
    expect(toContainerStatus(one).mounts?.[0]).toMatchObject({ propagation: expected });
    expect(toContainerStatus(one).mounts?.[0]).not.toHaveProperty('image');
  });
});
