import type { CgroupName } from '../../cgroups/index.ts';
import type { SelinuxLabels } from '../isolation/selinux.ts';
import type { Attachment } from '../network/attachment.ts';
import type { ProcessIdentity } from '../sys/process-identity.ts';
import type { SandboxConfig } from './config.ts';

/**
 * What is kept of a sandbox.
 *
 * ```
 *   (asked) ──► creating ──► live: READY ──► live: NOTREADY ──► removing ──► (gone)
 *                  │                           (stoppedAt)         ▲
 *                  └───────────── failed, or berthd died ──────────┘
 * ```
 * Only `live` sandboxes are listed and hold their name. `removing` is the to-do list: what could not be
 * taken down yet is tried again until it is gone. READY and NOTREADY are not stored: they follow from
 * `stoppedAt`.
 */
export interface SandboxRecord {
  readonly id: string;
  readonly config: SandboxConfig;
  /** As asked for; empty is the default handler. */
  readonly runtimeHandler: string;
  /** Nanoseconds since the epoch. */
  readonly createdAt: bigint;
  readonly phase: 'creating' | 'live' | 'removing';
  /** The kernel's boot id when it was made: pids, mounts and namespaces of another boot are gone. */
  readonly bootId: string;
  /** The pause container's cgroup, which is not there in a pod without one. */
  readonly cgroup: CgroupName;
  /** Parent cgroups that did not exist before, outermost first; removed with the sandbox when empty. */
  readonly madeCgroups: readonly string[];
  /** Recorded before CNI ADD, so that DEL can always run; gone when DEL has succeeded. */
  readonly attachment?: Attachment | undefined;
  /** Primary first; kept when the sandbox stops. Empty with the host's network. */
  readonly ips: readonly string[];
  /** Empty or absent where SELinux is not in use; its containers have the level of `mount`. */
  readonly selinux?: SelinuxLabels;
  /** What the pod may use since its last resize, in the caller's own numbers; before, its config says. */
  readonly resized?: Pick<SandboxConfig, 'overhead' | 'resources'>;
  /** Of a pod that has one; in others nothing runs but containers. */
  readonly pause?: ProcessIdentity;
  /** The OCI runtime knows nothing of the pause container any more. */
  readonly pauseRemoved?: boolean;
  /** Nanoseconds since the epoch at which it stopped being READY. */
  readonly stoppedAt?: bigint;
  /** Of taking it down, once that has failed. */
  readonly cleanup?: CleanupState | undefined;
}

/** How the taking down of something goes that could not be taken down at once. */
export interface CleanupState {
  readonly attempts: number;
  readonly lastError: string;
}

/** The state after one more failed try. */
export function failedAgain(before: CleanupState | undefined, failures: readonly string[]): CleanupState {
  return { attempts: (before?.attempts ?? 0) + 1, lastError: failures.join('; ') };
}

/** True when containers can be created in it. */
export function isReady(sandbox: SandboxRecord): boolean {
  return sandbox.phase === 'live' && sandbox.stoppedAt === undefined;
}

/** The key of idempotency that the kubelet retries with. */
export function sandboxKey({ metadata }: SandboxConfig): string {
  return JSON.stringify([metadata.namespace, metadata.name, metadata.uid, metadata.attempt]);
}
