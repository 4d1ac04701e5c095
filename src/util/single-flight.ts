/**
 * Joins calls of the same key that overlap: the first one works, the others get its result.
 *
 * The work is deliberately not tied to any caller's patience. The kubelet gives up after two minutes
 * and asks again with the same name; the second call must find the first one's work, not an error.
 */
export class SingleFlight<T> {
  readonly #inFlight = new Map<string, Promise<T>>();

  /** The running work of `key`, or new work from `start`. */
  run(key: string, start: () => Promise<T>): Promise<T> {
    const running = this.#inFlight.get(key);
    if (running !== undefined) return running;
    const work = start().finally(() => this.#inFlight.delete(key));
    this.#inFlight.set(key, work);
    return work;
  }

  /** The running work of `key`, if any. */
  get(key: string): Promise<T> | undefined {
    return this.#inFlight.get(key);
  }

  /** Resolves when all work that runs now has ended. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#inFlight.values());
  }
}
