import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Poller } from '../sys/poller.ts';
import type { ProcessIdentity } from '../sys/process-identity.ts';

/** Between two tries to record an exit, milliseconds; doubled each time up to the second. */
const RETRY_MS = 200;
const MAX_RETRY_MS = 10_000;

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
   * Calls `onExit` when the process has ended or the promise is kept (at once if it has already), and keeps it as what
   * {@link ended} waits for. While it fails it is called again: with a full disk an end cannot be recorded
   * yet, but must not be forgotten.
   */
  watch(id: string, process: ProcessIdentity | Promise<void> | undefined, onExit: () => Promise<void>): void {
    const isProcess = process !== undefined && 'pid' in process;
    const gone = isProcess ? this.#poller.watchExit(process) : Promise.resolve(process);
    this.#ended.set(
      id,
      gone.then(
        () => this.#record(id, onExit),
        // The daemon ends before the process does.
        () => {},
      ),
    );
  }

  async #record(id: string, onExit: () => Promise<void>): Promise<void> {
    for (let wait = RETRY_MS; ; wait = Math.min(2 * wait, MAX_RETRY_MS)) {
      try {
        return await onExit();
      } catch (e: unknown) {
        this.#log.error(
          { id, reason: messageOf(e) },
          'an exit could not be recorded; it will be tried again',
        );
      }
      await delay(wait, undefined, { ref: false });
    }
  }

  /** Resolves when the end of `id` has been dealt with; at once when it is not watched. */
  ended(id: string): Promise<void> {
    return this.#ended.get(id) ?? Promise.resolve();
  }

  forget(id: string): void {
    this.#ended.delete(id);
  }
}
