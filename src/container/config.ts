import type { Resources } from '../../cgroups/types.ts';
import type { IdMapping, NamespaceOptions, SecurityProfile, SelinuxOptions } from '../sandbox/config.ts';

/** The container's name in its pod; with `attempt` it is the key of idempotency. */
export interface ContainerMetadata {
  name: string;
  attempt: number;
}

/** The image as the caller named it. */
export interface ImageSpec {
  /** A reference or image id that an earlier pull returned. */
  image: string;
  /** What the user wrote in the pod; echoed, never resolved. */
  userSpecifiedImage: string;
  annotations: Record<string, string>;
  runtimeHandler: string;
}

/** A mount from the host (or of an image, when `image` is set) into the container. */
export interface Mount {
  containerPath: string;
  hostPath: string;
  readonly: boolean;
  recursiveReadOnly: boolean;
  selinuxRelabel: boolean;
  propagation: 'private' | 'hostToContainer' | 'bidirectional';
  uidMappings: IdMapping[];
  gidMappings: IdMapping[];
  image?: ImageSpec;
  imageSubPath: string;
}

/** A device of the host; `permissions` is a subset of "rwm". */
export interface Device {
  containerPath: string;
  hostPath: string;
  permissions: string;
}

/** Capability names without or with the prefix `CAP_`, or `ALL`. */
export interface Capabilities {
  add: string[];
  drop: string[];
  ambient: string[];
}

/** Security context of one container. */
export interface ContainerSecurity {
  capabilities: Capabilities;
  privileged: boolean;
  namespaces: NamespaceOptions;
  selinux?: SelinuxOptions;
  runAsUser?: bigint;
  runAsGroup?: bigint;
  /** A name of the image's passwd; exclusive with `runAsUser`. */
  runAsUsername: string;
  readonlyRootfs: boolean;
  supplementalGroups: bigint[];
  supplementalGroupsPolicy: 'merge' | 'strict';
  noNewPrivs: boolean;
  maskedPaths: string[];
  readonlyPaths: string[];
  seccomp: SecurityProfile;
  /** Absent: the pod says nothing, which means the default profile where the node has AppArmor. */
  apparmor?: SecurityProfile;
}

/** A container as the caller described it; kept as it came, so that it can be returned byte for byte. */
export interface ContainerConfig {
  metadata: ContainerMetadata;
  image: ImageSpec;
  command: string[];
  args: string[];
  workingDir: string;
  envs: { key: string; value: string }[];
  mounts: Mount[];
  devices: Device[];
  cdiDevices: string[];
  labels: Record<string, string>;
  annotations: Record<string, string>;
  /** Relative to the sandbox's log directory. */
  logPath: string;
  stdin: boolean;
  /** Close stdin for good when the first attached client leaves. */
  stdinOnce: boolean;
  tty: boolean;
  /** Name such as `SIGTERM`; undefined: the image's, else SIGTERM. */
  stopSignal?: string;
  resources: Resources;
  oomScoreAdj: bigint;
  security: ContainerSecurity;
}
