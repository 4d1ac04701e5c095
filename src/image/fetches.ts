import type { Faults } from '../faults.ts';
import { orAborted } from '../util/abort.ts';
import type { ContentStore } from './content.ts';
import { Growth } from './growth.ts';
import type { Descriptor } from './manifest.ts';
import type { Slots } from './semaphore.ts';

/** Where blobs come from. */
export interface BlobSource {
  /** The bytes of a blob, not yet verified. */
  fetch(descriptor: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Bounds how many blobs are fetched at once. */
  slots: Slots;
  /** The bytes are nobody else's; see `WriteOptions`. */
  isOwner?: boolean;
}

/** A blob that is stored, being fetched, or waiting for its turn. */
export interface Fetch {
  /** For reading along. */
  growth: Growth;
  /** Resolves when the blob is stored and verified. */
  done: Promise<void>;
  /** Of a fetch that somebody else began: when it fails, the reason may be theirs alone. */
  isJoined: boolean;
}

/** Bytes of one layer blob; far above what registries take. */
export const MAX_BLOB_BYTES = 128 * 2 ** 30;

/** Blobs being fetched: the same one wanted twice at once is fetched once. */
export class Fetches {
  readonly #content: ContentStore;
  readonly #faults: Faults;
  readonly #running = new Map<string, Omit<Fetch, 'isJoined'>>();

  #bytes = 0n;

  constructor(content: ContentStore, faults: Faults) {
    this.#content = content;
    this.#faults = faults;
  }

  /** Fetches under way, those that wait for their turn included. */
  get active(): number {
    return this.#running.size;
  }

  /** Bytes that have arrived so far, of all fetches; those that had to be thrown away count. */
  get bytes(): bigint {
    return this.#bytes;
  }

  /**
   * Gets a blob unless it is stored or on its way already. Its digest is held by a lease. The fetch belongs
   * to the pull that began it and ends with its signal.
   */
  begin(
    source: BlobSource,
    descriptor: Descriptor,
    signal: AbortSignal,
    onBytes?: (total: number) => void,
  ): Fetch {
    const { digest } = descriptor;
    const running = this.#running.get(digest);
    if (running !== undefined) return { ...running, isJoined: true };
    if (this.#content.size(digest) !== undefined) {
      return { growth: this.#content.stored(digest), done: Promise.resolve(), isJoined: false };
    }
    const growth = new Growth();
    const done = this.#fetch(source, descriptor, signal, growth, onBytes).finally(() =>
      this.#running.delete(digest),
    );
    this.#running.set(digest, { growth, done });
    return { growth, done, isJoined: false };
  }

  /** The same, to the end, and again when what it joined fails. @throws whatever the source or the store throws */
  async get(source: BlobSource, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const { done, isJoined } = this.begin(source, descriptor, signal);
      try {
        return await orAborted(done, signal);
      } catch (e: unknown) {
        if (!isJoined || signal.aborted) throw e;
      }
    }
  }

  #fetch(
    source: BlobSource,
    descriptor: Descriptor,
    signal: AbortSignal,
    growth: Growth,
    onBytes: ((total: number) => void) | undefined,
  ): Promise<void> {
    const { digest, size } = descriptor;
    return source.slots.run(signal, async () => {
      onBytes?.(0);
      const expected = { digest, size, limit: MAX_BLOB_BYTES };
      let before = 0;
      const count = (total: number): void => {
        this.#bytes += BigInt(total - before);
        before = total;
        onBytes?.(total);
      };
      const options = { onBytes: count, growth, isOwner: source.isOwner ?? false };
      await this.#content.write(source.fetch(descriptor, signal), expected, options);
      await this.#faults.at('PullImage.blob');
    });
  }
}
