import { during, kindOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Poller } from '../sys/poller.ts';
import type { ProcessIdentity } from '../sys/process-identity.ts';

/**
 * Watches one process per object (a container's monitor, a sandbox's pause) and tells when its end has
 * been dealt with, which is later than the end itself: whoever waits for a container wants its exit
 * code on record.
 */
export class ExitWatch {
  readonly #poller: Poller;
  readonly #log: Logger;
  readonly #ended = new Map<string, Promise<void>>();

  constructor(poller: Poller, log: Logger) {
    this.#poller = poller;
    this.#log = log;
  }

  /**
   * Calls `onExit` once when the process has ended (at once if it has already) and keeps it as what
   * {@link ended} waits for. A failing `onExit` is logged, and is for the next start or removal to repair.
   */
  watch(id: string, process: ProcessIdentity | undefined, onExit: () => Promise<void>): void {
    const gone = process === undefined ? Promise.resolve() : this.#poller.watchExit(process);
    const handled = gone.then(onExit).catch((e: unknown) => {
      // The daemon ends before the process does.
      if (kindOf(e) === 'cancelled') return;
      this.#log.error({ id, err: e }, 'an exit could not be recorded');
      throw during('record the exit', e);
    });
    // Somebody may wait for it or nobody.
    handled.catch(() => {});
    this.#ended.set(id, handled);
  }

  /** Resolves when the end of `id` has been dealt with; at once when it is not watched. */
  ended(id: string): Promise<void> {
    return this.#ended.get(id) ?? Promise.resolve();
  }

  forget(id: string): void {
    this.#ended.delete(id);
  }
}
