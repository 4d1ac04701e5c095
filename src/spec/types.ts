/**
 * The parts of the OCI runtime specification's config.json that berth writes
 * (runtime-spec 1.0.2: config.md and config-linux.md). Names are the specification's.
 */
export interface Spec {
  ociVersion: string;
  process: Process;
  root: { path: string; readonly: boolean };
  hostname?: string;
  mounts: SpecMount[];
  annotations: Record<string, string>;
  /** By their names, such as `createContainer`. */
  hooks?: Record<string, SpecHook[]>;
  linux: Linux;
}

/** A program that the OCI runtime runs at a moment of a container's life. */
export interface SpecHook {
  path: string;
  args?: string[];
  env?: string[];
  /** Seconds. */
  timeout?: number;
}

export interface Process {
  terminal: boolean;
  user: ProcessUser;
  args: string[];
  env: string[];
  cwd: string;
  capabilities: ProcessCapabilities;
  noNewPrivileges: boolean;
  /** -1000 (never killed for memory) to 1000. */
  oomScoreAdj: number;
  /** What is not listed is inherited from the OCI runtime's caller. */
  rlimits?: Rlimit[];
  apparmorProfile?: string;
  selinuxLabel?: string;
}

export interface ProcessUser {
  uid: number;
  gid: number;
  additionalGids: number[];
  /** Absent: each OCI runtime has its own habit, and a command that is run later the daemon's. */
  umask?: number;
}

/** One limit of setrlimit(2), such as `RLIMIT_NOFILE`. */
export interface Rlimit {
  type: string;
  soft: bigint;
  hard: bigint;
}

/** Names with the prefix `CAP_`. */
export interface ProcessCapabilities {
  bounding: string[];
  effective: string[];
  permitted: string[];
  inheritable: string[];
  ambient: string[];
}

export interface SpecMount {
  destination: string;
  type: string;
  source: string;
  options: string[];
  /** Owners on the file system, shown as those of the user namespace (runtime-spec 1.1). */
  uidMappings?: SpecIdMapping[];
  gidMappings?: SpecIdMapping[];
}

export interface SpecIdMapping {
  containerID: number;
  hostID: number;
  size: number;
}

export type NamespaceType = 'pid' | 'network' | 'ipc' | 'uts' | 'mount' | 'cgroup' | 'user';

/** Without `path` a new namespace; a type that is not listed is inherited from the OCI runtime. */
export interface Namespace {
  type: NamespaceType;
  path?: string;
}

export interface SpecDevice {
  path: string;
  type: 'c' | 'b' | 'p';
  major: number;
  minor: number;
  /** Permission bits. */
  fileMode: number;
  uid: number;
  gid: number;
}

/** A rule without type and numbers matches every device. */
export interface DeviceRule {
  allow: boolean;
  type?: 'c' | 'b' | 'p';
  major?: number;
  minor?: number;
  access: string;
}

export interface LinuxResources {
  devices: DeviceRule[];
  cpu?: { shares?: bigint; quota?: bigint; period?: bigint; cpus?: string; mems?: string };
  memory?: { limit?: bigint; swap?: bigint };
  pids?: { limit: bigint };
  hugepageLimits?: { pageSize: string; limit: bigint }[];
  unified?: Record<string, string>;
}

export interface SeccompArg {
  index: number;
  value: number | bigint;
  valueTwo: number | bigint;
  op: string;
}

export interface SeccompRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: SeccompArg[];
}

export interface LinuxSeccomp {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures: string[];
  flags?: string[];
  listenerPath?: string;
  listenerMetadata?: string;
  syscalls: SeccompRule[];
}

export interface Linux {
  namespaces: Namespace[];
  uidMappings?: SpecIdMapping[];
  gidMappings?: SpecIdMapping[];
  cgroupsPath: string;
  resources: LinuxResources;
  devices?: SpecDevice[];
  sysctl?: Record<string, string>;
  seccomp?: LinuxSeccomp;
  rootfsPropagation?: 'rshared' | 'rslave';
  /** Shares of cache and memory bandwidth (resctrl), for CDI devices that bring them. */
  intelRdt?: object;
  /** SELinux label of the file systems that the OCI runtime mounts. */
  mountLabel?: string;
  maskedPaths?: string[];
  readonlyPaths?: string[];
}

/** The version that runc 1.1 and crun 1.8 both know. */
export const OCI_VERSION = '1.0.2';
