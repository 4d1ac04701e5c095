import { existsSync } from 'node:fs';
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isErrno } from '../../src/errors.ts';
import { commandLines } from '../support/host.ts';

/** Linux' USER_HZ, the unit of /proc/<pid>/stat: 100 on every architecture that berth runs on. */
const TICK_NS = 10_000_000n;

/** Who of the machine's processes is a daemon or its helper, and what CPU time they have used. */
export interface Account {
  /** To be called for the daemon each time that it has started. */
  place(pid: number): Promise<void>;
  /** Nanoseconds of CPU time since some moment, of helpers that have ended too. */
  cpuNs(): Promise<bigint>;
  /** The daemon and its helpers: monitors or shims; neither pause nor workloads. */
  pids(): Promise<number[]>;
  close(): Promise<void>;
}

/**
 * A cgroup for the daemon: what it starts is in there too, except pods, which the OCI runtime moves to
 * their own. So nothing is missed, not even an OCI runtime that ends after some milliseconds.
 */
export class CgroupAccount implements Account {
  readonly #dir: string;
  readonly #v2: boolean;
  readonly #marker: string;

  private constructor(dir: string, v2: boolean, marker: string) {
    this.#dir = dir;
    this.#v2 = v2;
    this.#marker = marker;
  }

  /** @param directory the daemon's, which helpers that have been put elsewhere name in their command line */
  static async create(name: string, directory: string): Promise<CgroupAccount> {
    const v2 = existsSync('/sys/fs/cgroup/cgroup.controllers');
    const dir = path.join('/sys/fs/cgroup', v2 ? '' : 'cpuacct', name);
    await mkdir(dir);
    return new CgroupAccount(dir, v2, `${directory}/`);
  }

  async place(pid: number): Promise<void> {
    await writeFile(path.join(this.#dir, 'cgroup.procs'), String(pid));
  }

  async cpuNs(): Promise<bigint> {
    if (!this.#v2) return BigInt((await readFile(path.join(this.#dir, 'cpuacct.usage'), 'utf8')).trim());
    const stat = await readFile(path.join(this.#dir, 'cpu.stat'), 'utf8');
    return BigInt(/^usage_usec (\d+)$/m.exec(stat)?.[1] ?? 0) * 1000n;
  }

  async pids(): Promise<number[]> {
    const inside = (await readFile(path.join(this.#dir, 'cgroup.procs'), 'utf8')).split('\n').filter(Boolean);
    const named = [...(await commandLines())].filter(([, line]) => line.includes(this.#marker));
    return [...new Set([...inside.map(Number), ...named.map(([pid]) => pid)])];
  }

  async close(): Promise<void> {
    // The kernel takes a moment to forget the last process.
    for (let tries = 0; ; tries++) {
      try {
        await rmdir(this.#dir);
        return;
      } catch (e: unknown) {
        if (isErrno(e, 'ENOENT')) return;
        if (!isErrno(e, 'EBUSY') || tries === 100) throw e;
        await delay(50);
      }
    }
  }
}

/**
 * Counts the processes of a daemon that somebody else runs, without the helpers of pods that were there
 * before, which may be another daemon's; helpers that have ended are not counted.
 */
export class ProcessAccount implements Account {
  #daemon = 0;
  readonly #helpers: ReadonlySet<string>;
  readonly #before: ReadonlySet<number>;

  /** @param helpers names (`/proc/<pid>/comm`) of programs that count besides the daemon's descendants */
  static async create(helpers: readonly string[]): Promise<ProcessAccount> {
    return new ProcessAccount(helpers, [...(await commandLines()).keys()]);
  }

  private constructor(helpers: readonly string[], before: readonly number[]) {
    this.#helpers = new Set(helpers);
    this.#before = new Set(before);
  }

  async place(pid: number): Promise<void> {
    this.#daemon = pid;
  }

  async cpuNs(): Promise<bigint> {
    const stats = await Promise.all((await this.pids()).map(readStat));
    return stats.reduce((sum, stat) => sum + (stat?.ticks ?? 0n), 0n) * TICK_NS;
  }

  async pids(): Promise<number[]> {
    const all = [...(await commandLines()).keys()];
    const stats = new Map((await Promise.all(all.map(readStat))).map((stat) => [stat?.pid ?? 0, stat]));
    const isHelper = (pid: number, name: string): boolean => {
      if (pid === this.#daemon) return true;
      if (this.#helpers.has(name)) return !this.#before.has(pid);
      for (let up = stats.get(pid)?.parent ?? 0; up > 1; up = stats.get(up)?.parent ?? 0) {
        // A monitor's child is a container.
        if (up === this.#daemon) return true;
        if (this.#helpers.has(stats.get(up)?.name ?? '')) return false;
      }
      return false;
    };
    return [...stats]
      .filter(([pid, stat]) => stat !== undefined && isHelper(pid, stat.name))
      .map(([pid]) => pid);
  }

  async close(): Promise<void> {}
}

async function readStat(pid: number) {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // proc(5): the name may hold anything, so fields are counted from its closing bracket.
  const match = /^\d+ \((.*)\) (.*)$/s.exec(text);
  if (match === null) return undefined;
  const fields = match[2]?.split(' ') ?? [];
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + BigInt(field), 0n);
  return { pid, name: match[1] ?? '', parent: Number(fields[1]), ticks };
}

/** Bytes of memory that the processes would free together, their share of what they share counted (PSS). */
export async function pssBytes(pids: readonly number[]): Promise<number> {
  const sizes = await Promise.all(
    pids.map(async (pid) => {
      // One that ends meanwhile has no memory any more.
      const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
      return Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
    }),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
