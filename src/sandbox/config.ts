import type { Resources } from '../../cgroups/types.ts';

/** The name under which the kubelet asks for a pod; with `attempt` it is the key of idempotency. */
export interface SandboxMetadata {
  name: string;
  uid: string;
  namespace: string;
  attempt: number;
}

/** A mapping of `hostId … hostId+length-1` outside to `containerId …` inside. */
export interface IdMapping {
  hostId: number;
  containerId: number;
  length: number;
}

/**
 * Which namespaces a pod or container has of its own. `pod` is the sandbox's, `node` the host's,
 * `container` (PID only) a fresh one, `target` (PID only) that of the container `targetId`.
 */
export interface NamespaceOptions {
  network: 'pod' | 'node';
  pid: 'pod' | 'container' | 'node' | 'target';
  ipc: 'pod' | 'node';
  targetId: string;
  user: { mode: 'pod' | 'node'; uids: IdMapping[]; gids: IdMapping[] };
}

/** Seccomp or AppArmor profile; `localhostRef` is a path (seccomp) or profile name (AppArmor). */
export interface SecurityProfile {
  type: 'runtimeDefault' | 'unconfined' | 'localhost';
  localhostRef: string;
}

/** SELinux label parts, empty strings when unset. */
export interface SelinuxOptions {
  user: string;
  role: string;
  type: string;
  level: string;
}

/** Security context of the pod; ids are int64 in CRI. */
export interface SandboxSecurity {
  namespaces: NamespaceOptions;
  selinux?: SelinuxOptions;
  runAsUser?: bigint;
  runAsGroup?: bigint;
  readonlyRootfs: boolean;
  supplementalGroups: bigint[];
  supplementalGroupsPolicy: 'merge' | 'strict';
  privileged: boolean;
  seccomp: SecurityProfile;
  apparmor?: SecurityProfile;
}

/** One of the pod's published ports; `hostPort` 0 means "not published". */
export interface PortMapping {
  protocol: 'TCP' | 'UDP' | 'SCTP';
  containerPort: number;
  hostPort: number;
  hostIp: string;
}

/** `dns_config`: what goes into the pod's resolv.conf. */
export interface DnsConfig {
  servers: string[];
  searches: string[];
  options: string[];
}

/** A pod as the caller described it; kept as it came, so that it can be returned byte for byte. */
export interface SandboxConfig {
  metadata: SandboxMetadata;
  /** Empty with the host's network: the pod then has the node's name. */
  hostname: string;
  /** Absolute, or empty when the pod wants no logs. */
  logDirectory: string;
  dns?: DnsConfig;
  portMappings: PortMapping[];
  labels: Record<string, string>;
  annotations: Record<string, string>;
  /** As the kubelet spells it for the cgroup driver in use: a path or a slice name; may be empty. */
  cgroupParent: string;
  sysctls: Record<string, string>;
  security: SandboxSecurity;
  overhead?: Resources;
  resources?: Resources;
}
