import { readFile, readlink } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError } from '../../errors.ts';
import type { Reaper } from './reaper.ts';

const MADE_MS = 5000;
const LOOK_MS = 10;

/**
 * The PID namespace that containers of a pod share when they ask for it. Its first process reaps orphans and does
 * nothing else, as a pause container does.
 */
export class PodPidNamespace {
  readonly #reaper: Reaper;
  #path: Promise<string> | undefined;

  constructor(reaper: Reaper) {
    this.#reaper = reaper;
  }

  /** Its file; it is made when it is first asked for. */
  path(): Promise<string> {
    this.#path ??= this.#make();
    return this.#path;
  }

  async #make(): Promise<string> {
    const { pid } = this.#reaper.spawn(
      '/bin/busybox',
      ['unshare', '-f', '-p', '/usr/bin/catatonit', '-P'],
      ['ignore', 'ignore', 'ignore'],
    );
    const giveUp = performance.now() + MADE_MS;
    for (;;) {
      const [child] = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ');
      // Until it has become another program, a busybox would answer to a signal.
      if (
        child !== undefined &&
        child !== '' &&
        (await readlink(`/proc/${child}/exe`)) === '/usr/bin/catatonit'
      ) {
        return `/proc/${child}/ns/pid`;
      }
      if (performance.now() > giveUp)
        throw new BerthError('internal', "the pod's PID namespace was not made");
      await delay(LOOK_MS);
    }
  }
}
