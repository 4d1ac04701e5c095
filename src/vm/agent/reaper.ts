import { type Ended, endedChild, reapChild } from '../../sys/reap.ts';
import { type Child, type ChildStdio, spawnChild } from '../../sys/spawn.ts';

/**
 * Reaps everything that ends: as the machine's first process this one inherits all orphans, among them the
 * processes that the OCI runtime starts and leaves.
 */
export class Reaper {
  /** Programs that this process has started itself and that src/sys/spawn.ts reaps. */
  readonly #own = new Set<number>();
  readonly #waiting = new Map<number, (ended: Ended) => void>();
  /** While processes are being started: one may have ended before its number is known here. */
  readonly #unclaimed = new Map<number, Ended>();
  #starts = 0;
  readonly #env: Readonly<Record<string, string>>;

  constructor(env: Readonly<Record<string, string>>) {
    this.#env = env;
  }

  /** From now on; before the first program is started, whose own waiting must come first. */
  watch(): void {
    process.on('SIGCHLD', () => this.#look());
  }

  /** Starts a program of this machine's. @throws SyscallError */
  spawn(program: string, args: readonly string[], stdio: readonly ChildStdio[]): Child {
    const child = spawnChild(program, args, { env: this.#env, stdio });
    this.#own.add(child.pid);
    void child.exited.then(() => this.#own.delete(child.pid));
    return child;
  }

  /**
   * Runs what starts a process through another program, and tells its end, however early it is. Numbers come again,
   * so no end is remembered for longer.
   *
   * @param start answers the process's number
   */
  async starting(start: () => Promise<number>): Promise<{ pid: number; ended: Promise<Ended> }> {
    this.#starts++;
    try {
      const pid = await start();
      return { pid, ended: this.#ended(pid) };
    } finally {
      this.#starts--;
      if (this.#starts === 0) this.#unclaimed.clear();
    }
  }

  #ended(pid: number): Promise<Ended> {
    const ended = this.#unclaimed.get(pid);
    if (ended !== undefined) {
      this.#unclaimed.delete(pid);
      return Promise.resolve(ended);
    }
    return new Promise((resolve) => this.#waiting.set(pid, resolve));
  }

  #look(): void {
    for (;;) {
      const ended = endedChild();
      // One of its own is reaped after its own signal, which is on its way; so is this called again.
      if (ended === undefined || this.#own.has(ended.pid)) return;
      reapChild(ended.pid);
      this.#claim(ended);
    }
  }

  #claim(ended: Ended): void {
    const waiting = this.#waiting.get(ended.pid);
    if (waiting !== undefined) {
      this.#waiting.delete(ended.pid);
      waiting(ended);
      return;
    }
    if (this.#starts > 0) this.#unclaimed.set(ended.pid, ended);
  }
}
