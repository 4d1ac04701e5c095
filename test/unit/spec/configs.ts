import type { ContainerConfig, ContainerSecurity, Mount } from '../../../src/container/config.ts';
import type { ImageConfig } from '../../../src/image/types.ts';
import type { NamespaceOptions, SandboxConfig, SecurityProfile } from '../../../src/sandbox/config.ts';
import type { ContainerSpecInput } from '../../../src/spec/container.ts';
import type { HostFacts } from '../../../src/spec/host.ts';

export const UNCONFINED: SecurityProfile = { type: 'unconfined', localhostRef: '' };

/** What the kubelet sends for a pod with namespaces of its own. */
export function namespaces(over: Partial<NamespaceOptions> = {}): NamespaceOptions {
  return {
    network: 'pod',
    pid: 'container',
    ipc: 'pod',
    targetId: '',
    user: { mode: 'node', uids: [], gids: [] },
    ...over,
  };
}

export function sandboxConfig(
  over: Partial<SandboxConfig> = {},
  security: Partial<SandboxConfig['security']> = {},
): SandboxConfig {
  return {
    metadata: { name: 'web', namespace: 'default', uid: '7d3f', attempt: 0 },
    hostname: 'web',
    logDirectory: '/var/log/pods/web',
    portMappings: [],
    labels: {},
    annotations: {},
    cgroupParent: '',
    sysctls: {},
    security: {
      namespaces: namespaces(),
      readonlyRootfs: false,
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
      privileged: false,
      seccomp: UNCONFINED,
      ...security,
    },
    ...over,
  };
}

export function containerConfig(
  over: Partial<ContainerConfig> = {},
  security: Partial<ContainerSecurity> = {},
): ContainerConfig {
  return {
    metadata: { name: 'app', attempt: 0 },
    image: { image: 'sha256:abc', userSpecifiedImage: 'shop/app:1', annotations: {}, runtimeHandler: '' },
    command: [],
    args: [],
    workingDir: '',
    envs: [],
    mounts: [],
    devices: [],
    cdiDevices: [],
    labels: {},
    annotations: {},
    logPath: 'app/0.log',
    stdin: false,
    stdinOnce: false,
    tty: false,
    resources: {},
    oomScoreAdj: 0n,
    security: {
      capabilities: { add: [], drop: [], ambient: [] },
      privileged: false,
      namespaces: namespaces(),
      runAsUsername: '',
      readonlyRootfs: false,
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
      noNewPrivs: false,
      maskedPaths: [],
      readonlyPaths: [],
      seccomp: UNCONFINED,
      ...security,
    },
    ...over,
  };
}

export function mount(over: Partial<Mount> = {}): Mount {
  return {
    containerPath: '/data',
    hostPath: '/srv/data',
    readonly: false,
    recursiveReadOnly: false,
    selinuxRelabel: false,
    propagation: 'private',
    uidMappings: [],
    gidMappings: [],
    imageSubPath: '',
    ...over,
  };
}

export function imageConfig(over: Partial<ImageConfig> = {}): ImageConfig {
  return {
    os: 'linux',
    architecture: 'amd64',
    user: '',
    env: [],
    entrypoint: ['/bin/app'],
    cmd: ['serve'],
    workingDir: '',
    volumes: [],
    labels: {},
    stopSignal: '',
    ...over,
  };
}

/** A host that withholds CAP_SYS_RESOURCE. */
export function hostFacts(over: Partial<HostFacts> = {}): HostFacts {
  return {
    caps: new Set([...DEFAULT_CAPS, 'CAP_SYS_ADMIN', 'CAP_NET_ADMIN']),
    minOomScoreAdj: 0,
    hardLimits: new Map([['RLIMIT_NOFILE', 4096n]]),
    goArch: 'amd64',
    kernel: [6, 1],
    unifiedCgroups: true,
    swapAccounting: true,
    hugetlb: true,
    cgroup2Options: ['nsdelegate'],
    x32: true,
    ...over,
  };
}

export const DEFAULT_CAPS = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
];

/** Everything that an ordinary container in an ordinary pod is made from. */
export function containerInput(over: Partial<ContainerSpecInput> = {}): ContainerSpecInput {
  return {
    config: containerConfig(),
    image: imageConfig(),
    sandbox: { id: 'sb1', config: sandboxConfig() },
    rootfs: '/snap/rootfs',
    cgroupsPath: '/pods/c1',
    namespaces: { net: '/ns/net', uts: '/ns/uts', ipc: '/ns/ipc' },
    files: { hosts: '/sb/hosts', hostname: '/sb/hostname', resolvConf: '/sb/resolv.conf', shm: '/sb/shm' },
    hostname: 'web',
    devices: [],
    hostDevices: [],
    seccomp: undefined,
    apparmor: undefined,
    selinux: {},
    rlimits: [],
    missing: {},
    allowedAnnotations: [],
    host: hostFacts(),
    readRootfsFile: () => Promise.resolve(undefined),
    ...over,
  };
}
