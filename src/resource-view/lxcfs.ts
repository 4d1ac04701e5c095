import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError } from '../errors.ts';
import { inheritedEnvironment, run } from '../sys/exec.ts';
import { listMounts, unmount } from '../sys/mount.ts';
import { spawnChild } from '../sys/spawn.ts';
import { VIEW_FILES } from './files.ts';

/** A file system in user space that hangs must not hold anybody up, milliseconds. */
const ANSWER_MS = 3_000;
const START_MS = 10_000;
export const LXCFS_TYPE = 'fuse.lxcfs';

export interface LxcfsOptions {
  /** Where it is mounted. */
  dir: string;
  /** The program to start when nothing is mounted there; empty: somebody else starts it. */
  program: string;
}

/** The node's lxcfs. It goes on when berthd ends: containers look through it. */
export class Lxcfs {
  readonly #options: LxcfsOptions;
  #starting: Promise<string[]> | undefined;

  constructor(options: LxcfsOptions) {
    this.#options = options;
  }

  get dir(): string {
    return this.#options.dir;
  }

  /** `major:minor` of what is mounted now; changes with every start of lxcfs. It may be dead. */
  get device(): string | undefined {
    const mounted = listMounts(this.dir).findLast(({ mountpoint }) => mountpoint === this.dir);
    return mounted?.fstype === LXCFS_TYPE ? mounted.device : undefined;
  }

  /**
   * The files of a view that lxcfs has, after starting it where that is configured.
   *
   * @throws BerthError `precondition` when it does not answer
   */
  async files(): Promise<string[]> {
    const present = await this.#present();
    if (present.length > 0) return present;
    if (this.#options.program === '') {
      throw new BerthError('precondition', `resource view: no lxcfs answers at ${this.dir}; start it`);
    }
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #start(): Promise<string[]> {
    const { dir, program } = this.#options;
    // What a killed one leaves answers ENOTCONN, also to the one that wants to mount there.
    if (this.device !== undefined) unmount(dir, { lazy: true });
    await mkdir(dir, { recursive: true, mode: 0o755 });
    const args = ['--enable-cfs', '--enable-loadavg', '--pidfile', `${dir}.pid`, dir];
    const child = spawnChild(program, args, {
      env: inheritedEnvironment(),
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    const giveUp = performance.now() + START_MS;
    for (;;) {
      const present = this.device === undefined ? [] : await this.#present();
      if (present.length > 0) return present;
      if (child.reaped) throw new BerthError('precondition', `resource view: ${program} ended as it started`);
      if (performance.now() > giveUp) {
        throw new BerthError('precondition', `resource view: ${program} does not answer at ${dir}`);
      }
      await delay(20);
    }
  }

  /** Asked by a program that can be killed. */
  async #present(): Promise<string[]> {
    if (this.device === undefined) return [];
    const paths = VIEW_FILES.map((file) => join(this.dir, file));
    const limits = { timeoutMs: ANSWER_MS, maxOutput: 64 * 1024 };
    const result = await run(['stat', '--printf', '%n\\0', '--', ...paths], limits).catch(() => undefined);
    const found = new Set(result?.stdout.toString().split('\0'));
    return VIEW_FILES.filter((file) => found.has(join(this.dir, file)));
  }
}
