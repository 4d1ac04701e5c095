import { describe, expect, it } from 'vitest';
import { toContainerConfig, toSandboxConfig } from '../../../cri/mapping/config.ts';
import { fromContainerConfig } from '../../../cri/mapping/container.ts';
import { fromSandboxConfig } from '../../../cri/mapping/sandbox.ts';
import { containerConfig, mount, namespaces, sandboxConfig } from '../spec/configs.ts';
import { received } from './messages.ts';

const ids = {
  mode: 'pod' as const,
  uids: [{ hostId: 1, containerId: 2, length: 3 }],
  gids: [{ hostId: 4, containerId: 5, length: 6 }],
};
const shared = {
  namespaces: namespaces({ network: 'node', pid: 'target', ipc: 'node', targetId: 'c9', user: ids }),
  selinux: { user: 'u', role: 'r', type: 't', level: 'l' },
  runAsUser: 9_223_372_036_854_775_807n,
  runAsGroup: 0n,
  readonlyRootfs: true,
  supplementalGroups: [1n, 9_007_199_254_740_993n],
  supplementalGroupsPolicy: 'strict' as const,
  privileged: true,
  seccomp: { type: 'localhost' as const, localhostRef: '/s.json' },
  apparmor: { type: 'runtimeDefault' as const, localhostRef: '' },
};
const image = {
  image: 'sha256:1',
  userSpecifiedImage: 'app:1',
  annotations: { a: 'b' },
  runtimeHandler: 'h',
};

// Both ways at once: the way here is tested field by field in sandbox.test.ts and container.test.ts.
describe('toSandboxConfig is the way back', () => {
  it.each([
    ['the least', sandboxConfig()],
    [
      'everything',
      sandboxConfig(
        {
          metadata: { name: 'web', namespace: 'shop', uid: 'u', attempt: 4 },
          dns: { servers: ['10.0.0.10'], searches: ['svc'], options: ['ndots:5'] },
          portMappings: [{ protocol: 'UDP', containerPort: 53, hostPort: 5353, hostIp: '::1' }],
          labels: { l: '1' },
          annotations: { n: '2' },
          cgroupParent: '/kubepods',
          sysctls: { 'net.core.somaxconn': '1' },
          overhead: { cpuShares: 2n },
          resources: { memoryLimitBytes: 9_223_372_036_854_775_807n },
        },
        shared,
      ),
    ],
  ])('with %s', (_name, config) => {
    const message = received('RunPodSandbox', { config: toSandboxConfig(config) }).config;
    expect(fromSandboxConfig(message)).toEqual(config);
  });
});

describe('toContainerConfig is the way back', () => {
  it.each([
    ['the least', containerConfig()],
    [
      'everything',
      containerConfig(
        {
          metadata: { name: 'app', attempt: 2 },
          image,
          command: ['/bin/app'],
          args: ['serve'],
          workingDir: '/srv',
          envs: [{ key: 'A', value: 'grüße' }],
          mounts: [
            mount({
              readonly: true,
              recursiveReadOnly: true,
              selinuxRelabel: true,
              propagation: 'bidirectional',
              uidMappings: ids.uids,
              gidMappings: ids.gids,
              image,
              imageSubPath: 'sub',
            }),
          ],
          devices: [{ containerPath: '/dev/a', hostPath: '/dev/b', permissions: 'rw' }],
          cdiDevices: ['vendor.com/gpu=0'],
          labels: { l: '1' },
          annotations: { n: '2' },
          stdin: true,
          stdinOnce: true,
          tty: true,
          stopSignal: 'SIGRTMAX-2',
          resources: { cpuQuota: -1n, hugepageLimits: [{ pageSize: '2MB', limitBytes: 0n }] },
          oomScoreAdj: -998n,
        },
        {
          ...shared,
          capabilities: { add: ['NET_ADMIN'], drop: ['ALL'], ambient: ['KILL'] },
          runAsUsername: 'www',
          noNewPrivs: true,
          maskedPaths: ['/proc/kcore'],
          readonlyPaths: ['/proc/sys'],
        },
      ),
    ],
  ])('with %s', (_name, config) => {
    const { envs, ...rest } = toContainerConfig(config);
    const bytes = envs.map(({ key, value }) => ({ key, value: Buffer.from(value) }));
    const message = received('CreateContainer', { config: { ...rest, envs: bytes } }).config;
    expect(fromContainerConfig(message)).toEqual(config);
  });
});
