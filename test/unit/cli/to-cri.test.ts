import { describe, expect, it } from 'vitest';
import { parsePod } from '../../../src/cli/pod/parse.ts';
import { planPod } from '../../../src/cli/pod/plan.ts';
import {
  containersInOrder,
  hostsFile,
  type PodPlan,
  parseResolvConf,
  pullPolicy,
  toContainerConfig,
  toSandboxConfig,
} from '../../../src/cli/pod/to-cri.ts';

type Json = Record<string, unknown>;

function plan(spec: Json, metadata: Json = {}): PodPlan {
  const value = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', uid: 'u-1', ...metadata },
    spec: { containers: [{ name: 'a', image: 'busybox' }], ...spec },
  };
  const dns = { servers: ['10.0.0.1'], searches: ['lan'], options: ['ndots:1'] };
  const made = planPod(
    parsePod(value, 'test'),
    { memoryCapacity: 1_000_000n, dns, cgroupParent: '/p' },
    { podsDirectory: '/pods', nodeName: 'n1', cgroupParent: '/p' },
  );
  return { ...made, facts: { ...made.facts, podIps: ['10.1.0.2', 'fd00::2'] } };
}

/** The configuration of the first container, main or init. */
function container(spec: Json, metadata: Json = {}) {
  const made = plan(spec, metadata);
  const [first] = containersInOrder(made.pod);
  if (!first) return expect.unreachable();
  return toContainerConfig(made, first.container, first.field, 'sha256:abc');
}

const one = (fields: Json) => ({ containers: [{ name: 'a', image: 'busybox', ...fields }] });

describe('sandbox configuration', () => {
  it('has the identity, labels and places of the pod', () => {
    const config = toSandboxConfig(
      plan(
        { terminationGracePeriodSeconds: 7 },
        { namespace: 'ns', labels: { x: 'y' }, annotations: { k: 'v' } },
      ),
    );
    expect(config).toMatchObject({
      metadata: { name: 'web', namespace: 'ns', uid: 'u-1', attempt: 0 },
      hostname: 'web',
      log_directory: '/pods/u-1/logs',
      labels: {
        x: 'y',
        'io.kubernetes.pod.name': 'web',
        'io.kubernetes.pod.namespace': 'ns',
        'io.kubernetes.pod.uid': 'u-1',
      },
      annotations: {
        k: 'v',
        'io.kubernetes.pod.terminationGracePeriod': '7',
        'berth.run/pod-directory': '/pods/u-1',
      },
      linux: {
        cgroup_parent: '/p',
        security_context: { namespace_options: { network: 'POD', pid: 'CONTAINER', ipc: 'POD' } },
      },
    });
    expect(config).not.toHaveProperty('dns_config');
  });

  it('cannot be told a lie about its identity by the labels of the pod', () => {
    const { labels } = toSandboxConfig(plan({}, { labels: { 'io.kubernetes.pod.name': 'other' } }));
    expect(labels['io.kubernetes.pod.name']).toBe('web');
  });

  it.each<[Json, object]>([
    [
      { hostNetwork: true, hostIPC: true, hostPID: true },
      { network: 'NODE', pid: 'NODE', ipc: 'NODE' },
    ],
    [{ shareProcessNamespace: true }, { network: 'POD', pid: 'POD', ipc: 'POD' }],
  ])('maps %j to namespaces', (spec, options) => {
    expect(toSandboxConfig(plan(spec)).linux.security_context.namespace_options).toEqual(options);
    expect(container(spec).config.linux.security_context.namespace_options).toEqual(options);
  });

  it('has no hostname and no ports of its own on the network of the node', () => {
    const config = toSandboxConfig(plan({ hostNetwork: true, ...one({ ports: [{ containerPort: 80 }] }) }));
    expect(config).toMatchObject({ hostname: '', port_mappings: [] });
  });

  it('cuts long names to a hostname', () => {
    expect(toSandboxConfig(plan({}, { name: `${'a'.repeat(62)}.b` })).hostname).toBe('a'.repeat(62));
    expect(toSandboxConfig(plan({ hostname: 'h' })).hostname).toBe('h');
  });

  it('lists ports of all containers, published or not', () => {
    const ports = [
      { containerPort: 80, hostPort: 8080, hostIP: '127.0.0.1' },
      { containerPort: 53, protocol: 'UDP' },
    ];
    expect(toSandboxConfig(plan(one({ ports }))).port_mappings).toEqual([
      { protocol: 'TCP', container_port: 80, host_port: 8080, host_ip: '127.0.0.1' },
      { protocol: 'UDP', container_port: 53, host_port: 0, host_ip: '' },
    ]);
  });

  it('adds dnsConfig to the resolv.conf of the node, or replaces it', () => {
    const dnsConfig = {
      nameservers: ['1.1.1.1'],
      searches: ['a.b'],
      options: [{ name: 'ndots', value: '5' }, { name: 'edns0' }],
    };
    expect(toSandboxConfig(plan({ dnsConfig })).dns_config).toEqual({
      servers: ['10.0.0.1', '1.1.1.1'],
      searches: ['lan', 'a.b'],
      options: ['ndots:5', 'edns0'],
    });
    expect(toSandboxConfig(plan({ dnsPolicy: 'None', dnsConfig })).dns_config).toEqual({
      servers: ['1.1.1.1'],
      searches: ['a.b'],
      options: ['ndots:5', 'edns0'],
    });
  });

  it('has sysctls and groups, fsGroup among them', () => {
    const { linux } = toSandboxConfig(
      plan({
        securityContext: {
          sysctls: [{ name: 'net.core.somaxconn', value: '9' }],
          supplementalGroups: [5, 6],
          fsGroup: 6,
          runAsUser: 1000,
        },
      }),
    );
    expect(linux.sysctls).toEqual({ 'net.core.somaxconn': '9' });
    expect(linux.security_context).toMatchObject({
      supplemental_groups: ['5', '6'],
      run_as_user: { value: '1000' },
    });
  });
});

describe('container configuration', () => {
  it('has names, image, log path and expanded command, args and env', () => {
    const { config } = container(
      one({
        command: ['$(A)', '$$(A)'],
        args: ['$(NODE) $(NO)'],
        workingDir: '/w',
        tty: true,
        stdin: true,
        env: [
          { name: 'A', value: 'x' },
          { name: 'B', value: '$(A)-$(LATER)' },
          { name: 'LATER', value: '1' },
          { name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
          { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
          { name: 'IPS', valueFrom: { fieldRef: { fieldPath: 'status.podIPs' } } },
          { name: 'UID', valueFrom: { fieldRef: { fieldPath: 'metadata.uid' } } },
          { name: 'L', valueFrom: { fieldRef: { fieldPath: "metadata.labels['a/b']" } } },
          { name: 'OPT', valueFrom: { secretKeyRef: { name: 's', key: 'k', optional: true } } },
        ],
      }),
      { labels: { 'a/b': 'c' } },
    );
    expect(config).toMatchObject({
      metadata: { name: 'a', attempt: 0 },
      image: { image: 'sha256:abc', user_specified_image: 'busybox' },
      command: ['x', '$(A)'],
      args: ['n1 $(NO)'],
      working_dir: '/w',
      log_path: 'a/0.log',
      tty: true,
      stdin: true,
      stdin_once: false,
    });
    expect(Object.fromEntries(config.envs.map(({ key, value }) => [key, value.toString()]))).toEqual({
      A: 'x',
      B: 'x-$(LATER)',
      LATER: '1',
      NODE: 'n1',
      IP: '10.1.0.2',
      IPS: '10.1.0.2,fd00::2',
      UID: 'u-1',
      L: 'c',
    });
  });

  it('turns requests and limits into what the kernel counts in', () => {
    const resources = {
      requests: { cpu: '250m' },
      limits: { cpu: 1.5, memory: '64Mi', 'hugepages-2Mi': '4Mi' },
    };
    expect(container(one({ resources })).config.linux.resources).toEqual({
      cpu_shares: '256',
      cpu_quota: '150000',
      cpu_period: '100000',
      memory_limit_in_bytes: '67108864',
      oom_score_adj: '3',
      hugepage_limits: [{ page_size: '2MB', limit: '4194304' }],
    });
  });

  it.each<[string, Json, string, string]>([
    ['nothing', {}, '2', '1000'],
    ['a tiny limit', { limits: { cpu: '1m' } }, '2', '999'],
    ['equal requests and limits', { limits: { cpu: '1', memory: '1000' } }, '1024', '-997'],
    ['half of the memory', { requests: { memory: '500k' } }, '2', '500'],
    ['next to no memory', { requests: { memory: '1' } }, '2', '999'],
  ])('gives a container of %s its shares and OOM score', (_name, resources, shares, score) => {
    const made = container(one({ resources })).config.linux.resources;
    expect([made.cpu_shares, made.oom_score_adj]).toEqual([shares, score]);
  });

  it('sums resources for the pod; a limit needs one on every container', () => {
    const [a, b] = [{ limits: { cpu: '1', memory: '10' } }, { limits: { memory: '20' } }];
    const containers = [
      { name: 'a', image: 'i', resources: a },
      { name: 'b', image: 'i', resources: b },
    ];
    const initContainers = [{ name: 'c', image: 'i', resources: { limits: { memory: '50' } } }];
    expect(toSandboxConfig(plan({ containers })).linux.resources).toMatchObject({
      memory_limit_in_bytes: '30',
      cpu_quota: '0',
      cpu_shares: '1024',
    });
    expect(toSandboxConfig(plan({ containers, initContainers })).linux.resources.memory_limit_in_bytes).toBe(
      '50',
    );
  });

  it('lets the container precede the pod in security, and is safe by default', () => {
    const { security_context: plain } = container({}).config.linux;
    expect(plain).toMatchObject({
      privileged: false,
      no_new_privs: false,
      readonly_rootfs: false,
      seccomp: { profile_type: 'RuntimeDefault' },
      capabilities: { add_capabilities: [], drop_capabilities: [] },
    });
    expect(plain.masked_paths).toContain('/proc/kcore');
    expect(plain.readonly_paths).toContain('/proc/sys');
    expect(plain).not.toHaveProperty('run_as_user');
    const { security_context: set } = container({
      securityContext: { runAsUser: 1, runAsGroup: 2, seccompProfile: { type: 'Unconfined' } },
      ...one({
        securityContext: {
          runAsUser: 0,
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          procMount: 'Unmasked',
          capabilities: { add: ['NET_ADMIN'], drop: ['ALL'] },
          seccompProfile: { type: 'Localhost', localhostProfile: 'p/x.json' },
          appArmorProfile: { type: 'RuntimeDefault' },
          seLinuxOptions: { level: 's0' },
        },
      }),
    }).config.linux;
    expect(set).toMatchObject({
      run_as_user: { value: '0' },
      run_as_group: { value: '2' },
      no_new_privs: true,
      readonly_rootfs: true,
      masked_paths: [],
      readonly_paths: [],
      capabilities: { add_capabilities: ['NET_ADMIN'], drop_capabilities: ['ALL'] },
      seccomp: { profile_type: 'Localhost', localhost_ref: '/var/lib/kubelet/seccomp/p/x.json' },
      apparmor: { profile_type: 'RuntimeDefault' },
      selinux_options: { user: '', role: '', type: '', level: 's0' },
    });
    expect(
      container(one({ securityContext: { privileged: true } })).config.linux.security_context,
    ).toMatchObject({
      privileged: true,
      seccomp: { profile_type: 'Unconfined' },
    });
  });

  it('mounts volumes', () => {
    const { mounts } = container({
      volumes: [
        { name: 'e', emptyDir: { sizeLimit: '1Ki', medium: 'Memory' } },
        { name: 'h', hostPath: { path: '/srv' } },
      ],
      ...one({
        env: [{ name: 'P', value: 'sub' }],
        volumeMounts: [
          { name: 'e', mountPath: '/e', subPathExpr: '$(P)/x', readOnly: true, recursiveReadOnly: 'Enabled' },
          { name: 'h', mountPath: 'h/', mountPropagation: 'HostToContainer' },
        ],
      }),
    });
    expect(mounts).toMatchObject([
      {
        volume: {
          hostPath: '/pods/u-1/volumes/e',
          source: { kind: 'emptyDir', memory: true, sizeLimit: 1024n },
        },
        subPath: 'sub/x',
        containerPath: '/e',
        readonly: true,
        recursiveReadOnly: true,
        propagation: 'PROPAGATION_PRIVATE',
      },
      { volume: { hostPath: '/srv' }, containerPath: '/h/', propagation: 'PROPAGATION_HOST_TO_CONTAINER' },
    ]);
  });
});

describe('pods that cannot run', () => {
  const mount = (fields: Json) => ({
    volumes: [{ name: 'v', emptyDir: {} }],
    ...one({ volumeMounts: [{ name: 'v', mountPath: '/v', ...fields }] }),
  });
  it.each<[string, Json, RegExp]>([
    [
      'secret volumes',
      { volumes: [{ name: 's', secret: { secretName: 'x' } }] },
      /spec\.volumes\[0\]\.secret: is not/,
    ],
    [
      'a volume of two types',
      { volumes: [{ name: 's', emptyDir: {}, hostPath: { path: '/x' } }] },
      /must have one type/,
    ],
    [
      'a relative hostPath',
      { volumes: [{ name: 's', hostPath: { path: 'x' } }] },
      /hostPath\.path: must be absolute/,
    ],
    [
      'a hostPath with ..',
      { volumes: [{ name: 's', hostPath: { path: '/x/../y' } }] },
      /hostPath\.path: must/,
    ],
    [
      'an unknown hostPath type',
      { volumes: [{ name: 's', hostPath: { path: '/x', type: 'Pipe' } }] },
      /type: must be one/,
    ],
    [
      'an unknown volume',
      one({ volumeMounts: [{ name: 'no', mountPath: '/x' }] }),
      /volumeMounts\[0\]\.name: /,
    ],
    ['a subPath upwards', mount({ subPath: 'a/../../b' }), /subPath: must be relative/],
    ['bidirectional mounts without privilege', mount({ mountPropagation: 'Bidirectional' }), /privileged/],
    [
      'envFrom',
      one({ envFrom: [{ configMapRef: { name: 'x' } }] }),
      /containers\[0\]\.envFrom: needs an API server/,
    ],
    [
      'secrets in env',
      one({ env: [{ name: 'A', valueFrom: { secretKeyRef: { name: 's' } } }] }),
      /only fieldRef/,
    ],
    [
      'an unknown field',
      one({ env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'status.x' } } }] }),
      /fieldPath: must be one of/,
    ],
    [
      'a bad quantity',
      one({ resources: { limits: { cpu: 'lots' } } }),
      /containers\[0\]\.resources\.limits\.cpu: must be a quantity/,
    ],
    [
      'a request above its limit',
      one({ resources: { requests: { memory: 2 }, limits: { memory: 1 } } }),
      /must not exceed/,
    ],
    ['user namespaces', { hostUsers: false }, /spec\.hostUsers/],
    ['two containers of one name', { initContainers: [{ name: 'a', image: 'x' }] }, /is there twice/],
    ['a restart policy on a main container', one({ restartPolicy: 'Always' }), /restartPolicy: must be/],
    [
      'a seccomp profile upwards',
      one({ securityContext: { seccompProfile: { type: 'Localhost', localhostProfile: '../x' } } }),
      /must be a path below/,
    ],
    ['dnsPolicy None without servers', { dnsPolicy: 'None' }, /spec\.dnsConfig/],
    ['both PID modes', { hostPID: true, shareProcessNamespace: true }, /contradicts/],
  ])('refuses %s', (_name, spec, message) => {
    expect(() => plan(spec)).toThrow(message);
    expect(() => plan(spec)).toThrow(/^pod default\/web: /);
  });
});

it.each<[string, string | undefined, string]>([
  ['busybox', undefined, 'Always'],
  ['busybox:latest', undefined, 'Always'],
  ['reg:5000/busybox', undefined, 'Always'],
  ['reg:5000/busybox:1', undefined, 'IfNotPresent'],
  ['busybox@sha256:00', undefined, 'IfNotPresent'],
  ['busybox', 'Never', 'Never'],
])('pulls %s with policy %s by %s', (image, imagePullPolicy, wanted) => {
  const { pod } = plan(one({ image, imagePullPolicy }));
  const [first] = pod.spec.containers;
  expect(first && pullPolicy(first)).toBe(wanted);
});

it('writes a hosts file with the addresses and aliases of the pod', () => {
  const { pod, facts } = plan({ hostAliases: [{ ip: '1.2.3.4', hostnames: ['x', 'y'] }] });
  const lines = hostsFile(pod, facts).split('\n');
  expect(lines).toContain('10.1.0.2\tweb');
  expect(lines).toContain('fd00::2\tweb');
  expect(lines).toContain('1.2.3.4\tx\ty');
});

it('reads a resolv.conf', () => {
  const text =
    '# c\nnameserver 1.1.1.1\nnameserver ::1 ; x\nsearch old\nsearch a b\noptions ndots:2 edns0\nfoo bar\n';
  expect(parseResolvConf(text)).toEqual({
    servers: ['1.1.1.1', '::1'],
    searches: ['a', 'b'],
    options: ['ndots:2', 'edns0'],
  });
});
