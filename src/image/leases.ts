/**
 * What pulls and imports under way have fetched or rely on, so that garbage collection leaves it alone.
 * In memory only: what a killed daemon was fetching is garbage at the next start.
 */
export class Leases {
  readonly #counts = new Map<string, number>();

  /** Keeps `key` until the returned lease is disposed of. Keys are digests of blobs and chain IDs. */
  hold(key: string): Disposable {
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        const left = (this.#counts.get(key) ?? 1) - 1;
        if (left === 0) this.#counts.delete(key);
        else this.#counts.set(key, left);
      },
    };
  }

  has(key: string): boolean {
    return this.#counts.has(key);
  }
}
