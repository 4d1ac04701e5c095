import { mkdir, readFile, rm } from 'node:fs/promises';
import { BerthError } from '../../errors.ts';
import { readPidFile, runtimeMessage } from '../../runtime/oci/runtime.ts';
import type { Ended } from '../../sys/reap.ts';
import type { Child, ChildStdio } from '../../sys/spawn.ts';
import type { Reaper } from './reaper.ts';
import { STATE_DIR } from './system.ts';

const RUNC = '/usr/sbin/runc';
const ROOT = `${STATE_DIR}/runc`;
const LOGS = `${STATE_DIR}/logs`;
const NULL_STDIO: readonly ChildStdio[] = ['ignore', 'ignore', 'ignore'];

/** runc in the guest: one program a call, its messages in a file that is read when it fails. */
export class GuestRuntime {
  readonly #reaper: Reaper;
  #calls = 0;

  constructor(reaper: Reaper) {
    this.#reaper = reaper;
  }

  async prepare(): Promise<void> {
    await mkdir(LOGS, { recursive: true, mode: 0o700 });
  }

  /**
   * Runs a verb to its end.
   *
   * @returns the ends of the pipes that `stdio` asked for
   * @throws BerthError `internal` with runc's message
   */
  async run(verb: readonly string[], stdio: readonly ChildStdio[] = NULL_STDIO): Promise<Child['pipes']> {
    const log = `${LOGS}/${++this.#calls}`;
    const child = this.#reaper.spawn(RUNC, ['--root', ROOT, '--log', log, ...verb], stdio);
    try {
      const { code, signal } = await child.exited;
      if (code === 0) return child.pipes;
      for (const pipe of child.pipes) pipe?.destroy();
      const said = runtimeMessage(await readFile(log, 'utf8').catch(() => ''));
      throw new BerthError('internal', said || `runc ${verb[0]}: ${signal ?? `exit code ${code}`}`);
    } finally {
      await rm(log, { force: true });
    }
  }

  /**
   * Runs a verb that starts a process (`create`, `exec --detach`) and that writes its number to a file.
   *
   * @param pidFile is removed
   */
  async startProcess(
    verb: readonly string[],
    pidFile: string,
    stdio: readonly ChildStdio[],
  ): Promise<{ pid: number; ended: Promise<Ended>; pipes: Child['pipes'] }> {
    let pipes: Child['pipes'] = [];
    try {
      const started = await this.#reaper.starting(async () => {
        pipes = await this.run(verb, stdio);
        return readPidFile(pidFile);
      });
      return { ...started, pipes };
    } finally {
      await rm(pidFile, { force: true });
    }
  }

  /** Kills what is left of a container and forgets it; one that runc does not know is done. */
  async delete(id: string): Promise<void> {
    await this.run(['delete', '--force', id]);
  }
}
