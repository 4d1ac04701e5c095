import { type FileHandle, open } from 'node:fs/promises';
import { isErrno } from '../errors.ts';

/**
 * A blob's file from the moment it is wanted until it is stored, for whoever reads it while it grows: a
 * layer is unpacked while it is being downloaded.
 */
export class Growth {
  #path: string | undefined;
  #bytes = 0;
  #isComplete = false;
  readonly #begun = Promise.withResolvers<void>();
  readonly #completed = Promise.withResolvers<void>();
  #next = Promise.withResolvers<void>();

  /** A blob that is stored already. */
  static stored(path: string, bytes: number): Growth {
    const growth = new Growth();
    growth.begin(path);
    growth.grow(bytes);
    growth.complete(path);
    return growth;
  }

  /** Bytes that can be read. */
  get bytes(): number {
    return this.#bytes;
  }

  /** All bytes are there and have the right digest. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Resolves when there is a file; never when the fetch ends before that. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  /** Resolves when `isComplete` becomes true; never after a fetch that failed. */
  get completed(): Promise<void> {
    return this.#completed.promise;
  }

  /** Resolves at the next change; never after a fetch that failed, which its owner tells. */
  changed(): Promise<void> {
    return this.#next.promise;
  }

  /** For reading, after `begun`; it stays the same file when it gets its final name. The caller closes it. */
  async open(): Promise<FileHandle> {
    for (;;) {
      const path = this.#path ?? '';
      try {
        return await open(path, 'r');
      } catch (e: unknown) {
        // Renamed meanwhile.
        if (!isErrno(e, 'ENOENT') || path === this.#path) throw e;
      }
    }
  }

  begin(path: string): void {
    this.#path = path;
    this.#begun.resolve();
  }

  /** `bytes` in all have been written. */
  grow(bytes: number): void {
    this.#bytes = bytes;
    this.#notify();
  }

  /** The file is now at `path`. */
  complete(path: string): void {
    this.#path = path;
    this.#isComplete = true;
    this.#completed.resolve();
    this.#notify();
  }

  #notify(): void {
    const { resolve } = this.#next;
    this.#next = Promise.withResolvers<void>();
    resolve();
  }
}
