import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BerthError } from '../errors.ts';
import { printable, type TarEntry, type TarHandler } from '../image/tar/reader.ts';

/** The names of an OCI layout (OCI image-spec, image-layout.md). */
const NAME = /^(oci-layout|index\.json|blobs\/[a-z0-9]+\/[0-9a-f]+)$/;

/** Writes what a daemon exports as an OCI layout into a directory, and nothing of other names. */
export class LayoutWriter implements TarHandler {
  readonly #directory: string;
  #fd: number | undefined;

  /** @param directory an existing one */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** @throws BerthError `internal` for a name that no layout has; SystemError */
  entry({ name, type }: TarEntry): void {
    // For docker, which reads archives only.
    if (type === 'directory' || name === 'manifest.json') return;
    if (type !== 'file' || !NAME.test(name))
      throw new BerthError('internal', `the daemon sent "${printable(name)}", which is no part of a layout`);
    const path = join(this.#directory, name);
    mkdirSync(dirname(path), { recursive: true });
    this.#fd = openSync(path, 'wx');
  }

  data(chunk: Buffer): void {
    if (this.#fd === undefined) return;
    for (let at = 0; at < chunk.length; ) at += writeSync(this.#fd, chunk, at);
  }

  end(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
