import { describe, expect, test } from 'vitest';
import type { ContainerConfig, ContainerSecurity } from '../../../src/container/config.ts';
import { kindOf, messageOf } from '../../../src/errors.ts';
import type { NamespaceOptions, SandboxConfig, SandboxSecurity } from '../../../src/sandbox/config.ts';
import { validateContainerConfig, validateSandboxConfig } from '../../../src/spec/validate.ts';
import { containerConfig, mount, namespaces, sandboxConfig, UNCONFINED } from './configs.ts';

const meta = { name: 'web', namespace: 'default', uid: 'u', attempt: 0 };
const big = { k: 'x'.repeat(10 * 1024 * 1024) };

function refusal(check: () => void): string {
  try {
    check();
  } catch (e: unknown) {
    return `${kindOf(e)} ${messageOf(e)}`;
  }
  return 'accepted';
}

describe('validateSandboxConfig', () => {
  test('takes what the kubelet sends', () => {
    const full = sandboxConfig(
      {
        labels: { 'io.kubernetes.pod.name': 'web' },
        dns: {
          servers: ['10.96.0.10', 'fd00::a', 'fe80::1%eth0'],
          searches: ['svc.cluster.local', '.'],
          options: ['ndots:5'],
        },
        portMappings: [{ protocol: 'TCP', containerPort: 80, hostPort: 0, hostIp: '' }],
        cgroupParent: '/kubepods/burstable/pod7d3f',
        sysctls: { 'net.core.somaxconn': '1024' },
        resources: { cpuQuota: -1n, cpuShares: 2n, memoryLimitBytes: 0n },
      },
      { runAsUser: 1000n, runAsGroup: 1000n, supplementalGroups: [5n] },
    );
    expect(refusal(() => validateSandboxConfig(full))).toBe('accepted');
    expect(refusal(() => validateSandboxConfig(sandboxConfig({ hostname: '', logDirectory: '' })))).toBe(
      'accepted',
    );
  });

  const port = { protocol: 'TCP', containerPort: 80, hostPort: 8080, hostIp: '' } as const;
  const dns = { servers: [], searches: [], options: [] };
  const cases: [string, Partial<SandboxConfig>, Partial<SandboxSecurity>?][] = [
    ['metadata.name: must not be empty', { metadata: { ...meta, name: '' } }],
    ['metadata.name: must not contain', { metadata: { ...meta, name: 'a/b' } }],
    ['metadata.name: must have at most', { metadata: { ...meta, name: 'a'.repeat(254) } }],
    ['metadata.namespace: must not be', { metadata: { ...meta, namespace: '..' } }],
    ['metadata.uid: must not contain', { metadata: { ...meta, uid: '../x' } }],
    ['metadata.attempt: must be', { metadata: { ...meta, attempt: -1 } }],
    ['hostname: must', { hostname: 'a\nb' }],
    ['hostname: must', { hostname: 'a'.repeat(65) }],
    ['log_directory: must be an absolute', { logDirectory: 'logs' }],
    ['log_directory: must not contain ".."', { logDirectory: '/var/log/../../etc' }],
    ['labels: keys and values', { labels: big }],
    ['annotations: keys and values', { annotations: big }],
    ['linux.cgroup_parent: must not contain', { cgroupParent: '/kubepods/../../x' }],
    ['linux.sysctls["kernel.panic"]: ', { sysctls: { 'kernel.panic': '1' } }],
    ['dns_config.servers[0]: ', { dns: { ...dns, servers: ['8.8.8.8\noptions x'] } }],
    ['dns_config.searches[0]: ', { dns: { ...dns, searches: ['a b'] } }],
    ['dns_config.options[1]: ', { dns: { ...dns, options: ['ndots:5', ''] } }],
    ['port_mappings[0].container_port: ', { portMappings: [{ ...port, containerPort: -1 }] }],
    ['port_mappings[1].host_port: ', { portMappings: [port, { ...port, hostPort: 65_536 }] }],
    ['port_mappings[0].host_ip: ', { portMappings: [{ ...port, hostIp: 'localhost' }] }],
    ['linux.resources.memory_limit_in_bytes: ', { resources: { memoryLimitBytes: -2n } }],
    ['linux.overhead.cpu_shares: ', { overhead: { cpuShares: -1n } }],
    ['linux.security_context.run_as_group: needs', {}, { runAsGroup: 1n }],
    ['linux.security_context.run_as_user: ', {}, { runAsUser: -1n }],
    ['linux.security_context.supplemental_groups[0]: ', {}, { supplementalGroups: [-1n] }],
    [
      'linux.security_context.seccomp.localhost_ref: ',
      {},
      { seccomp: { type: 'localhost', localhostRef: '' } },
    ],
    ['linux.security_context.namespace_options.pid: ', {}, { namespaces: namespaces({ pid: 'target' }) }],
  ];
  test.each(cases.map(([field, ...rest]) => ({ field, rest })))(
    '$field',
    ({ field, rest: [over, security] }) => {
      const answer = refusal(() => validateSandboxConfig(sandboxConfig(over, security)));
      expect(answer.startsWith(`invalid config.${field}`), answer).toBe(true);
    },
  );

  test('a user namespace is refused where the kernel would refuse it, and for what contradicts it', () => {
    const range = (containerId: number, hostId: number, length: number) => ({ containerId, hostId, length });
    const whole = [range(0, 65_536, 65_536)];
    const check = (user: Partial<NamespaceOptions['user']>, over: Partial<NamespaceOptions> = {}): string => {
      const options = namespaces({ ...over, user: { mode: 'pod', uids: whole, gids: whole, ...user } });
      return refusal(() => validateSandboxConfig(sandboxConfig({}, { namespaces: options })));
    };
    expect(check({})).toBe('accepted');
    const field = 'config\\.linux\\.security_context\\.namespace_options\\.userns_options';
    const refused: [string, string][] = [
      [check({ gids: [] }), `${field}\\.gids: must have one mapping; has 0`],
      [
        check({ uids: [...whole, range(65_536, 200_000, 1)] }),
        `${field}\\.uids: must have one mapping; has 2`,
      ],
      [check({ uids: [range(1, 65_536, 9)] }), `${field}\\.uids\\[0\\]\\.container_id: must be 0`],
      [check({ uids: [range(0, 65_536, 0)] }), `${field}\\.uids\\[0\\]\\.length`],
      [check({ uids: [range(0, 2 ** 32 - 9, 9)] }), `${field}\\.uids\\[0\\]\\.length`],
      [check({ mode: 'node' }), `${field}: has mappings`],
      [check({}, { network: 'node', pid: 'node', ipc: 'node' }), `${field}: .*: network, ipc, pid`],
    ];
    for (const [said, wanted] of refused) expect(said).toMatch(new RegExp(`^invalid ${wanted}`));
  });
});

describe('validateContainerConfig', () => {
  const check = (config: ContainerConfig, sandbox = sandboxConfig()): string =>
    refusal(() => validateContainerConfig(config, sandbox));

  test('takes what the kubelet sends', () => {
    const image = { image: 'sha256:def', userSpecifiedImage: '', annotations: {}, runtimeHandler: '' };
    const full = containerConfig(
      {
        mounts: [mount(), mount({ image, hostPath: '', imageSubPath: 'docs' })],
        resources: {
          cpuQuota: -1n,
          memorySwapLimitBytes: -1n,
          cpusetCpus: '0-3,8',
          hugepageLimits: [{ pageSize: '2MB', limitBytes: 0n }],
          unified: { 'memory.oom.group': '1', 'hugetlb.2MB.max': '0' },
        },
        oomScoreAdj: -997n,
      },
      {
        runAsUsername: 'app',
        runAsGroup: 5n,
        maskedPaths: ['/proc/kcore'],
        seccomp: { type: 'localhost', localhostRef: '/var/lib/kubelet/seccomp/x.json' },
        apparmor: { type: 'runtimeDefault', localhostRef: '' },
      },
    );
    expect(check(full)).toBe('accepted');
    expect(check(containerConfig({ logPath: '' }))).toBe('accepted');
  });

  const withCaps = (add: string[]) => ({ capabilities: { add, drop: [], ambient: [] } });
  const cases: [string, Partial<ContainerConfig>, Partial<ContainerSecurity>?][] = [
    ['metadata.name: ', { metadata: { name: '', attempt: 0 } }],
    ['metadata.name: ', { metadata: { name: 'a/b', attempt: 0 } }],
    ['metadata.attempt: ', { metadata: { name: 'a', attempt: 1.5 } }],
    ['image.image: ', { image: { image: '', userSpecifiedImage: '', annotations: {}, runtimeHandler: '' } }],
    ['log_path: must not contain ".."', { logPath: '../../etc/cron.d/x' }],
    ['log_path: must be relative', { logPath: '/etc/x' }],
    ['log_path: must name a file', { logPath: 'app/' }],
    ['labels: ', { labels: big }],
    ['annotations: ', { annotations: big }],
    ['mounts[1].container_path: ', { mounts: [mount(), mount({ containerPath: 'rel' })] }],
    ['mounts[0].host_path: ', { mounts: [mount({ hostPath: 'rel' })] }],
    ['linux.resources.oom_score_adj: ', { oomScoreAdj: -1001n }],
    ['linux.resources.cpu_period: ', { resources: { cpuPeriod: -1n } }],
    ['linux.resources.cpu_quota: ', { resources: { cpuQuota: -2n } }],
    ['linux.resources.memory_swap_limit_in_bytes: ', { resources: { memorySwapLimitBytes: -5n } }],
    [
      'linux.resources.memory_swap_limit_in_bytes: ',
      { resources: { memoryLimitBytes: 8n, memorySwapLimitBytes: 4n } },
    ],
    ['linux.resources.unified: ', { resources: { unified: { 'cgroup.kill': '1' } } }],
    ['linux.resources.cpuset_cpus: ', { resources: { cpusetCpus: '0-' } }],
    [
      'linux.resources.hugepage_limits[0].page_size: ',
      { resources: { hugepageLimits: [{ pageSize: '../x', limitBytes: 1n }] } },
    ],
    [
      'linux.resources.hugepage_limits[0].limit: ',
      { resources: { hugepageLimits: [{ pageSize: '2MB', limitBytes: -1n }] } },
    ],
    ['linux.resources.unified: ', { resources: { unified: { '../cgroup.procs': '1' } } }],
    ['linux.security_context.privileged: ', {}, { privileged: true }],
    ['linux.security_context.run_as_username: excludes', {}, { runAsUser: 1n, runAsUsername: 'a' }],
    ['linux.security_context.run_as_username: must be', {}, { runAsUsername: 'a:b' }],
    ['linux.security_context.run_as_group: needs', {}, { runAsGroup: 1n }],
    ['linux.security_context.capabilities.add_capabilities[0]: ', {}, withCaps(['NOPE'])],
    [
      'linux.security_context.seccomp.localhost_ref: must not be empty',
      {},
      { seccomp: { type: 'localhost', localhostRef: '' } },
    ],
    [
      'linux.security_context.seccomp.localhost_ref: must be an absolute',
      {},
      { seccomp: { type: 'localhost', localhostRef: 'a.json' } },
    ],
    [
      'linux.security_context.apparmor.localhost_ref: is for',
      {},
      { apparmor: { ...UNCONFINED, localhostRef: 'x' } },
    ],
    ['linux.security_context.masked_paths[0]: ', {}, { maskedPaths: ['proc'] }],
    ['linux.security_context.readonly_paths[0]: ', {}, { readonlyPaths: ['/proc/../x'] }],
    [
      'linux.security_context.namespace_options.target_id: ',
      {},
      { namespaces: namespaces({ pid: 'target' }) },
    ],
    [
      'linux.security_context.namespace_options.userns_options: ',
      {},
      { namespaces: namespaces({ user: { mode: 'pod', uids: [], gids: [] } }) },
    ],
  ];
  test.each(cases.map(([field, ...rest]) => ({ field, rest })))(
    '$field',
    ({ field, rest: [over, security] }) => {
      const answer = check(containerConfig(over, security));
      expect(answer.startsWith(`invalid config.${field}`), answer).toBe(true);
    },
  );

  test('privileged containers need a privileged sandbox', () => {
    const config = containerConfig({}, { privileged: true });
    expect(check(config, sandboxConfig({}, { privileged: true }))).toBe('accepted');
  });

  test('CDI devices have full names, also in annotations', () => {
    expect(check(containerConfig({ cdiDevices: ['vendor.com/gpu=0'] }))).toBe('accepted');
    expect(check(containerConfig({ cdiDevices: ['vendor.com/gpu'] }))).toMatch(
      /^invalid config\.CDI_devices\[0\]\.name: /,
    );
    expect(check(containerConfig({ annotations: { 'cdi.k8s.io/x': 'gpu0' } }))).toMatch(
      /^invalid config\.annotations\["cdi\.k8s\.io\/x"\]: /,
    );
  });
});
