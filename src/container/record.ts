import type { CgroupName } from '../../cgroups/index.ts';
import type { Resources } from '../../cgroups/types.ts';
import type { SelinuxLabels } from '../isolation/selinux.ts';
import type { CleanupState } from '../sandbox/record.ts';
import type { ProcessIdentity } from '../sys/process-identity.ts';
import type { ContainerConfig } from './config.ts';
import type { ImageVolume } from './image-volumes.ts';

/**
 * What is kept of a container.
 *
 * ```
 *   (asked) ──► creating ──► live: CREATED ──► live: RUNNING ──► live: EXITED ──► removing ──► (gone)
 *                  │            (startedAt unset)  (startedAt)     (exit)            ▲
 *                  └──────────────── failed, or berthd died ─────────────────────────┘
 * ```
 * As with sandboxes only `live` ones are listed, and the CRI state is derived, so that no second copy of
 * it can drift.
 */
export interface ContainerRecord {
  readonly id: string;
  readonly sandboxId: string;
  readonly config: ContainerConfig;
  /** Digest of the image's config. */
  readonly imageId: string;
  readonly imageVolumes: readonly ImageVolume[];
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly phase: 'creating' | 'live' | 'removing';
  /** Absolute, or empty when the sandbox has no log directory. */
  readonly logPath: string;
  readonly cgroup: CgroupName;
  /** From the config, else the image, else SIGTERM. */
  readonly stopSignal: string;
  /** Empty or absent where SELinux is not in use. */
  readonly selinux?: SelinuxLabels;
  readonly user?: ContainerUser;
  /** It sees its share of the machine through lxcfs. */
  readonly resourceView?: boolean;
  /** Its writable layer is a virtual machine's disk, which took so many bytes at the start. */
  readonly disk?: { readonly baseBytes: bigint };
  readonly init?: ProcessIdentity;
  readonly conmon?: ProcessIdentity;
  /** What the OCI runtime said when it refused to create the container; StartContainer reports it. */
  readonly createError?: string;
  /** As last set, in the caller's own numbers. */
  readonly resources: Resources;
  /** The same; the config's until it is changed. */
  readonly oomScoreAdj?: bigint;
  /** Nanoseconds since the epoch. */
  readonly startedAt?: bigint;
  readonly exit?: ContainerExit;
  /** The OCI runtime's state, the cgroup and the mount of an exited container are gone. */
  readonly reaped?: boolean;
  /** Of clearing up after it, once that has failed. */
  readonly cleanup?: CleanupState | undefined;
}

/** Numeric identity of the container's first process. */
export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  readonly supplementalGroups: readonly number[];
}

/** How a container ended. */
export interface ContainerExit {
  /** The code, or 128 + signal; 255 when it is not known, 128 when it never started. */
  readonly code: number;
  /** Nanoseconds since the epoch. */
  readonly finishedAt: bigint;
  /** Completed, Error, OOMKilled, StartError or Unknown. */
  readonly reason: string;
  readonly message: string;
}

/** The states of CRI. */
export type ContainerState = 'created' | 'running' | 'exited';

export function containerState(container: ContainerRecord): ContainerState {
  if (container.exit !== undefined) return 'exited';
  return container.startedAt === undefined ? 'created' : 'running';
}

/** The key of idempotency: the kubelet retries a create with the same name and attempt. */
export function containerKey(sandboxId: string, { metadata }: ContainerConfig): string {
  return JSON.stringify([sandboxId, metadata.name, metadata.attempt]);
}
