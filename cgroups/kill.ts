import { CgroupError, errnoOf } from './io.ts';
import { backoff, procsOf } from './tree.ts';

/** What the kill loop needs of a hierarchy. */
export interface KillTarget {
  readonly path: string;
  /** The cgroup's directories in all hierarchies. */
  readonly dirs: readonly string[];
  /** Asks the kernel to kill the whole subtree at once, where it can. */
  readonly killAtOnce: () => Promise<void>;
  /** Best effort, bounded; a frozen cgroup cannot fork away from the signals. */
  readonly freeze: () => Promise<void>;
  readonly thaw: () => Promise<void>;
}

function signalAll(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (e) {
      if (errnoOf(e) !== 'ESRCH') throw e;
    }
  }
}

/**
 * Kills every process of a subtree and waits until none is left. One plain round is enough for a
 * container with its own PID namespace, whose members die with its init. Processes that were not there
 * in the round before mean that somebody forks faster than we signal: then the subtree is frozen,
 * signalled and thawed. Every round ends with a thaw, because on v1 SIGKILL acts on a frozen (paused)
 * process only then.
 * @throws CgroupError EPERM when this process itself is in the cgroup, ETIMEDOUT when the signal fires.
 */
export async function killTree(target: KillTarget, signal: AbortSignal): Promise<void> {
  let seen: ReadonlySet<number> | undefined;
  for (let round = 0; ; round++) {
    let pids = procsOf(target.dirs);
    if (pids.length === 0) return;
    if (pids.includes(process.pid)) {
      throw new CgroupError(
        'EPERM',
        target.path,
        `refusing to kill cgroup ${target.path}: it holds this process`,
      );
    }
    await target.killAtOnce();
    const forking = seen !== undefined && pids.some((pid) => !seen?.has(pid));
    seen = new Set(pids);
    try {
      if (forking) await target.freeze();
      // Read and signal with nothing awaited between, or a pid could have changed hands.
      pids = procsOf(target.dirs);
      signalAll(pids);
    } finally {
      await target.thaw();
    }
    await backoff(round, target.path, 'killing cgroup', signal);
  }
}
