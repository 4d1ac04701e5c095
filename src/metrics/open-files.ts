import { readdirSync, readFileSync, statSync } from 'node:fs';
import { readdir, readlink } from 'node:fs/promises';
import { isErrno } from '../errors.ts';
import { SingleFlight } from '../util/single-flight.ts';
import type { OpenFiles } from './family.ts';

/** Sockets can only be told from files one by one: not before this again, milliseconds. */
const SOCKETS_AGE_MS = 60_000;
/** Nor before so many times as long as it took. */
const REST = 20;
/** Descriptors of one container that are looked at; beyond, the number of sockets is unknown. */
const MAX_LOOKED_AT = 20_000;

/** Counts what containers' processes have open. */
export class OpenFileCounts {
  readonly #sockets = new Map<string, { count: bigint | undefined; until: number }>();
  readonly #counting = new SingleFlight<void>();

  /** @param id of the container @param init its first process, if that is known */
  of(id: string, pids: readonly number[], init: number | undefined): OpenFiles {
    const descriptors = pids.reduce((total, pid) => total + countDescriptors(pid), 0n);
    const softLimit = init === undefined ? undefined : maxOpenFiles(init);
    const known = this.#sockets.get(id);
    if (known === undefined || performance.now() > known.until) {
      // For the next scrape; a process that cannot be looked into costs but that number.
      void this.#counting.run(id, () => this.#countSockets(id, pids)).catch(() => {});
    }
    return { descriptors, sockets: known?.count, softLimit };
  }

  /** Forgets all other containers. */
  retain(ids: ReadonlySet<string>): void {
    for (const id of this.#sockets.keys()) if (!ids.has(id)) this.#sockets.delete(id);
  }

  async #countSockets(id: string, pids: readonly number[]): Promise<void> {
    const began = performance.now();
    const count = await socketsOf(pids);
    const now = performance.now();
    this.#sockets.set(id, { count, until: now + Math.max(SOCKETS_AGE_MS, REST * (now - began)) });
  }
}

async function socketsOf(pids: readonly number[]): Promise<bigint | undefined> {
  let looked = 0;
  let count = 0n;
  for (const pid of pids) {
    const fds = await readdir(`/proc/${pid}/fd`).catch(emptyIfGone([]));
    looked += fds.length;
    if (looked > MAX_LOOKED_AT) return undefined;
    for (const fd of fds) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(emptyIfGone(''));
      if (target.startsWith('socket:')) count++;
    }
  }
  return count;
}

/**
 * Since kernel 6.2 the size of a process's fd directory is their number; before, it is 0. Synchronous as
 * reading a cgroup is: the kernel answers from memory, and at once.
 */
function countDescriptors(pid: number): bigint {
  const dir = `/proc/${pid}/fd`;
  try {
    const { size } = statSync(dir, { bigint: true });
    return size > 0n ? size : BigInt(readdirSync(dir).length);
  } catch (e: unknown) {
    return emptyIfGone(0n)(e);
  }
}

/** Soft limit of `Max open files` (proc_pid_limits(5)). */
function maxOpenFiles(pid: number): bigint | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1];
    return soft === undefined ? undefined : BigInt(soft);
  } catch (e: unknown) {
    return emptyIfGone(undefined)(e);
  }
}

/** Processes end while they are looked at. */
function emptyIfGone<T>(empty: T): (e: unknown) => T {
  return (e) => {
    if (isErrno(e, 'ENOENT', 'ESRCH')) return empty;
    throw e;
  };
}
