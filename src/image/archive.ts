import type { FileHandle } from 'node:fs/promises';
import { rm } from 'node:fs/promises';
import { BerthError } from '../errors.ts';
import { orAborted } from '../util/abort.ts';
import { type ContentStore, writeAll } from './content.ts';
import { type TarEntry, type TarHandler, TarReader } from './tar/reader.ts';
import { decompress } from './unpack/decompress.ts';

/** Entries of one image archive; `docker save` makes four a layer. */
const MAX_ENTRIES = 100_000;
/** Bytes of an archive after decompression. */
const MAX_BYTES = 512 * 2 ** 30;
const MAX_LINKS = 8;
const READ_SIZE = 256 * 1024;

/** Where an entry's content is in the spooled file, in bytes. */
interface Span {
  offset: number;
  size: number;
}

/**
 * An image archive (tar, plain or compressed) spooled into a file, since its parts come in any order.
 * Entries are only looked up by name: nothing of the archive becomes a path of this machine.
 */
export class Archive {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #entries = new EntryIndex();

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  /** Reads a stream to its end. @throws BerthError `invalid` when it is no tar archive, `exhausted` past a bound */
  static async spool(
    content: ContentStore,
    stream: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<Archive> {
    const { path, file } = await content.ingest();
    const archive = new Archive(path, file);
    try {
      const reader = new TarReader(archive.#entries);
      let size = 0;
      for await (const chunk of decompress(buffers(stream, signal))) {
        size += chunk.length;
        if (size > MAX_BYTES) throw new BerthError('exhausted', `archive: more than ${MAX_BYTES} bytes`);
        reader.push(chunk);
        await writeAll(file, chunk);
      }
      reader.finish();
      return archive;
    } catch (e: unknown) {
      await archive.close();
      throw e;
    }
  }

  has(name: string): boolean {
    return this.#entries.find(name) !== undefined;
  }

  /** A small entry as a whole. @throws BerthError `invalid` when it is absent or larger than `limit` bytes */
  async read(name: string, limit: number): Promise<Buffer> {
    const { size } = this.#require(name);
    if (size > limit)
      throw new BerthError('invalid', `archive: "${name}" has ${size} bytes, more than ${limit}`);
    const chunks: Buffer[] = [];
    for await (const chunk of this.stream(name)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /** The first bytes of an entry. @throws BerthError `invalid` when it is absent */
  async start(name: string): Promise<Buffer> {
    for await (const chunk of this.stream(name)) return chunk;
    return Buffer.alloc(0);
  }

  /** The content of an entry. @throws BerthError `invalid` when it is absent */
  async *stream(name: string): AsyncGenerator<Buffer> {
    const { offset, size } = this.#require(name);
    for (let at = 0; at < size; ) {
      const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, size - at));
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, offset + at);
      if (bytesRead === 0) throw new BerthError('internal', `archive: spooled file ends within "${name}"`);
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  /** Removes the spooled file. */
  async close(): Promise<void> {
    await this.#file.close();
    await rm(this.#path, { force: true });
  }

  #require(name: string): Span {
    const span = this.#entries.find(name);
    if (span === undefined) throw new BerthError('invalid', `archive: has no file "${name.slice(0, 300)}"`);
    return span;
  }
}

/** Where each entry is; of equal names the last counts, as in tar. */
class EntryIndex implements TarHandler {
  readonly #files = new Map<string, Span>();
  /** Entry → entry: `docker save` up to version 24 stores a repeated layer as a symlink. */
  readonly #links = new Map<string, string>();
  #count = 0;

  entry(entry: TarEntry): void {
    this.#count += 1;
    if (this.#count > MAX_ENTRIES)
      throw new BerthError('exhausted', `archive: more than ${MAX_ENTRIES} entries`);
    if (entry.sparse !== undefined) throw new BerthError('invalid', 'archive: contains a sparse file');
    const name = plainName(entry.name);
    this.#files.delete(name);
    this.#links.delete(name);
    if (entry.type === 'file') this.#files.set(name, { offset: entry.offset, size: entry.size });
    else if (entry.type === 'hardlink') this.#links.set(name, plainName(entry.linkname));
    else if (entry.type === 'symlink') this.#links.set(name, plainName(`${name}/../${entry.linkname}`));
  }

  data(): void {}

  end(): void {}

  find(name: string): Span | undefined {
    let target = plainName(Buffer.from(name).toString('latin1'));
    for (let i = 0; i < MAX_LINKS; i++) {
      const span = this.#files.get(target);
      if (span !== undefined) return span;
      const next = this.#links.get(target);
      if (next === undefined) return undefined;
      target = next;
    }
    return undefined;
  }
}

/** A name without `./`, `..` and leading slashes; only a key, never a path. */
function plainName(name: string): string {
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}

/** The stream's chunks; an abort is noticed also while the sender is silent. */
async function* buffers(stream: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Buffer> {
  const chunks = stream[Symbol.asyncIterator]();
  for (;;) {
    const { value, done } = await orAborted(chunks.next(), signal);
    if (done === true) return;
    yield Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
}
