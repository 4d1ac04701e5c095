/** Serialises work per key; different keys never wait for each other. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<unknown>>();

  /** Runs `fn` after all earlier work of the same key has ended, however it ended. */
  async run<T>(key: string, fn: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const work = before.then(fn, fn);
    this.#tails.set(key, work);
    try {
      return await work;
    } finally {
      if (this.#tails.get(key) === work) this.#tails.delete(key);
    }
  }
}
