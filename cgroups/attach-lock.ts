import { closeSync, openSync, readFileSync, write } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Hierarchy } from './mountinfo.ts';

/** Less than the shortest grace period seen, which was 4.4 ms. */
const GAP_MS = 4;

const writeFd = promisify(write);

/**
 * Takes a wait off OCI runtimes. Whoever moves a process to a cgroup takes a lock of the kernel's
 * (`cgroup_threadgroup_rwsem`), and the first to take it waits for an RCU grace period, which is 5 to 12 ms; another one
 * that comes before the next period has passed waits for nothing (kernel/rcu/sync.c). A runtime moves every process that
 * it starts, some 10 ms after it was started itself. So the lock is taken meanwhile by somebody who has the time: an
 * exec takes a quarter less, a create a fifth. (With the mount option `favordynmods` nobody waits, at the price of
 * slower forks on the whole node.)
 */
export class AttachLock {
  readonly #take: () => Promise<unknown>;
  #users = 0;
  #isWorking = false;

  /** @param take takes the lock and gives it back, on another thread */
  constructor(take: () => Promise<unknown>) {
    this.#take = take;
  }

  /** The lock of this machine, taken by moving this process to where it is. */
  static of(hierarchies: readonly Hierarchy[]): AttachLock {
    return new AttachLock(async () => {
      // Each time, since it may have been moved: it must not be moved back.
      const file = ownProcsFile(hierarchies, readFileSync('/proc/self/cgroup', 'utf8'));
      if (file === undefined) throw new Error('the cgroup of this process is not mounted');
      const fd = openSync(file, 'r+');
      try {
        await writeFd(fd, '0');
      } finally {
        closeSync(fd);
      }
    });
  }

  /** While `work` lasts, others get the lock at once. Answers and fails as `work` does. */
  async ready<T>(work: Promise<T>): Promise<T> {
    this.#users++;
    if (!this.#isWorking) void this.#keepReady();
    try {
      return await work;
    } finally {
      this.#users--;
    }
  }

  async #keepReady(): Promise<void> {
    this.#isWorking = true;
    try {
      while (this.#users > 0) {
        await this.#take();
        await delay(GAP_MS);
      }
    } catch {
      // Without the right to: then the runtime waits.
    } finally {
      this.#isWorking = false;
    }
  }
}

/**
 * The cgroup.procs of a process, from the text of its /proc/<pid>/cgroup (cgroups(7)): on v2 if that is mounted, else
 * in any hierarchy.
 */
export function ownProcsFile(hierarchies: readonly Hierarchy[], text: string): string | undefined {
  const found = text.split('\n').flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const wanted = controllers === '' ? 2 : 1;
    const hierarchy = hierarchies.find(
      (h) => h.version === wanted && (wanted === 2 || h.controllers.some((c) => controllers === c)),
    );
    return hierarchy === undefined
      ? []
      : [{ version: wanted, file: `${hierarchy.mountpoint}${path}/cgroup.procs` }];
  });
  return (found.find(({ version }) => version === 2) ?? found[0])?.file;
}
