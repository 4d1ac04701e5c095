import type { Growth } from '../growth.ts';

/** An unpacking that waits or runs. */
interface Job {
  readonly blob: Growth;
  readonly start: () => void;
}

/**
 * Bounds how many layers are unpacked at once. One slot is kept for layers that are on disk: those that
 * are still being downloaded last as long as their registry likes, and must not keep others waiting.
 */
export class UnpackSlots {
  readonly #slots: number;
  readonly #running = new Set<Job>();
  /** In order of arrival. */
  readonly #waiting = new Set<Job>();

  /** @param slots at least 2 */
  constructor(slots: number) {
    this.#slots = slots;
  }

  /** Unpackings that run. */
  get active(): number {
    return this.#running.size;
  }

  /** Runs `work`, which reads `blob`, when its turn comes. @throws the signal's reason when it fires before that */
  async run<T>(signal: AbortSignal, blob: Growth, work: () => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const { promise: turn, resolve: start, reject } = Promise.withResolvers<void>();
    const job = { blob, start };
    const abort = (): void => {
      if (this.#waiting.delete(job)) reject(signal.reason);
    };
    signal.addEventListener('abort', abort, { once: true });
    this.#waiting.add(job);
    this.#pump();
    // It may then have a slot that is free for stored blobs only.
    void blob.completed.then(() => this.#pump());
    try {
      await turn;
      return await work();
    } finally {
      signal.removeEventListener('abort', abort);
      this.#running.delete(job);
      this.#pump();
    }
  }

  #pump(): void {
    for (const job of this.#waiting) {
      if (this.#running.size >= this.#slots) return;
      const growing = [...this.#running].filter(({ blob }) => !blob.isComplete).length;
      if (!job.blob.isComplete && growing >= this.#slots - 1) continue;
      this.#waiting.delete(job);
      this.#running.add(job);
      job.start();
    }
  }
}
