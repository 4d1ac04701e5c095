import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { readdir, readlink } from 'node:fs/promises';
import { isErrno } from '../errors.ts';
import { SingleFlight } from '../util/single-flight.ts';
import type { OpenFiles } from './family.ts';

/** Sockets can only be told from files one by one, and limits hardly change: not before this again, milliseconds. */
const SOCKETS_AGE_MS = 60_000;
/** Nor before so many times as long as it took. */
const REST = 20;
/** So many descriptors of one container are looked at within the scrape, more are between two. */
const AT_ONCE = 200n;
/** Descriptors of one container that are looked at; beyond, the number of sockets is unknown. */
const MAX_LOOKED_AT = 20_000;

/** Counts what containers' processes have open. */
export class OpenFileCounts {
  readonly #sockets = new Map<string, { count: bigint | undefined; until: number }>();
  readonly #limits = new Map<string, { softLimit: bigint | undefined; until: number }>();
  readonly #counting = new SingleFlight<void>();

  /** @param id of the container @param init its first process, if that is known */
  of(id: string, pids: readonly number[], init: number | undefined): OpenFiles {
    const descriptors = pids.reduce((total, pid) => total + countDescriptors(pid), 0n);
    const softLimit = init === undefined ? undefined : this.#softLimit(id, init);
    const known = this.#sockets.get(id);
    if (known !== undefined && performance.now() < known.until) {
      return { descriptors, sockets: known.count, softLimit };
    }
    if (descriptors <= AT_ONCE) {
      const sockets = socketsNow(pids);
      this.#sockets.set(id, { count: sockets, until: performance.now() + SOCKETS_AGE_MS });
      return { descriptors, sockets, softLimit };
    }
    // A process that cannot be looked into costs but that number.
    void this.#counting.run(id, () => this.#countSockets(id, pids)).catch(() => {});
    return { descriptors, sockets: known?.count, softLimit };
  }

  /** Forgets all other containers. */
  retain(ids: ReadonlySet<string>): void {
    for (const known of [this.#sockets, this.#limits]) {
      for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
    }
  }

  #softLimit(id: string, init: number): bigint | undefined {
    const known = this.#limits.get(id);
    const now = performance.now();
    if (known !== undefined && now < known.until) return known.softLimit;
    const softLimit = maxOpenFiles(init);
    this.#limits.set(id, { softLimit, until: now + SOCKETS_AGE_MS });
    return softLimit;
  }

  async #countSockets(id: string, pids: readonly number[]): Promise<void> {
    const began = performance.now();
    const count = await socketsOf(pids);
    const now = performance.now();
    this.#sockets.set(id, { count, until: now + Math.max(SOCKETS_AGE_MS, REST * (now - began)) });
  }
}

function socketsNow(pids: readonly number[]): bigint {
  let count = 0n;
  for (const pid of pids) {
    const dir = `/proc/${pid}/fd`;
    for (const fd of orIfGone(() => readdirSync(dir), [])) {
      if (orIfGone(() => readlinkSync(`${dir}/${fd}`), '').startsWith(SOCKET)) count++;
    }
  }
  return count;
}

/** What the link of a descriptor begins with (proc_pid_fd(5)). */
const SOCKET = 'socket:';

async function socketsOf(pids: readonly number[]): Promise<bigint | undefined> {
  let looked = 0;
  let count = 0n;
  for (const pid of pids) {
    const fds = await readdir(`/proc/${pid}/fd`).catch(emptyIfGone([]));
    looked += fds.length;
    if (looked > MAX_LOOKED_AT) return undefined;
    for (const fd of fds) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(emptyIfGone(''));
      if (target.startsWith(SOCKET)) count++;
    }
  }
  return count;
}

/**
 * How many descriptors a process has. Since kernel 6.2 the size of a process's fd directory is their number; before, it is 0. Synchronous as
 * reading a cgroup is: the kernel answers from memory, and at once.
 */
export function countDescriptors(pid: number): bigint {
  const dir = `/proc/${pid}/fd`;
  const size = orIfGone(() => statSync(dir, { bigint: true }).size, 0n);
  return size > 0n ? size : BigInt(orIfGone(() => readdirSync(dir), []).length);
}

/** Soft limit of `Max open files` (proc_pid_limits(5)). */
function maxOpenFiles(pid: number): bigint | undefined {
  const text = orIfGone(() => readFileSync(`/proc/${pid}/limits`, 'utf8'), '');
  const soft = /^Max open files\s+(\d+)/m.exec(text)?.[1];
  return soft === undefined ? undefined : BigInt(soft);
}

/** Processes end while they are looked at. */
function orIfGone<T>(look: () => T, empty: T): T {
  try {
    return look();
  } catch (e: unknown) {
    return emptyIfGone(empty)(e);
  }
}

function emptyIfGone<T>(empty: T): (e: unknown) => T {
  return (e) => {
    if (isErrno(e, 'ENOENT', 'ESRCH')) return empty;
    throw e;
  };
}
