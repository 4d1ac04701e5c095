import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync } from 'node:fs';
import { type FileHandle, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BerthError, isErrno } from '../errors.ts';
import type { Database } from '../persist/database.ts';
import { release } from '../util/release.ts';
import { Growth } from './growth.ts';

export interface WriteOptions {
  /** Called with the bytes so far. */
  onBytes?: ((total: number) => void) | undefined;
  /** Called with the digest before the blob gets its name, to take a lease where it was not known before. */
  hold?: (digest: string) => void;
  /** For those who read along. */
  growth?: Growth;
  /** The source's pieces are nobody else's: their memory is given back when they are written. */
  isOwner?: boolean;
}

/**
 * Blobs by digest: `<root>/content/<algorithm>/<hex>`. What is being fetched is in `<root>/ingest` and
 * comes here whole, on disk and verified, or not at all. The `blobs` table lists what is here.
 */
export class ContentStore {
  readonly #root: string;
  readonly #db: Database;

  constructor(root: string, db: Database) {
    this.#root = root;
    this.#db = db;
    for (const dir of ['content/sha256', 'content/sha512', 'ingest']) {
      mkdirSync(join(root, dir), { recursive: true, mode: 0o700 });
    }
  }

  /** Where a blob is, or would be. `digest` has been checked by `isDigest`. */
  path(digest: string): string {
    return join(this.#root, 'content', digest.replace(':', '/'));
  }

  /** Bytes of a blob, or undefined when it is not here. */
  size(digest: string): bigint | undefined {
    const row = this.#db.get<{ size: bigint }>('SELECT size FROM blobs WHERE digest = ?', digest);
    // After a power cut the record may outlive the file.
    return row !== undefined && existsSync(this.path(digest)) ? row.size : undefined;
  }

  /** A small blob as a whole. @throws BerthError `notFound`; `exhausted` when it is larger than `limit` bytes. */
  async read(digest: string, limit: number): Promise<Buffer> {
    const size = this.size(digest);
    if (size === undefined) throw new BerthError('notFound', `blob ${digest} not found`);
    if (size > limit)
      throw new BerthError('exhausted', `blob ${digest} has ${size} bytes, more than ${limit}`);
    return readFile(this.path(digest));
  }

  /** A stored blob to be read. @throws BerthError `notFound` */
  stored(digest: string): Growth {
    const size = this.size(digest);
    if (size === undefined) throw new BerthError('notFound', `blob ${digest} not found`);
    return Growth.stored(this.path(digest), Number(size));
  }

  /** A new file in the ingest folder, which `discard` or `Ingest.commit` ends. */
  async ingest(): Promise<{ path: string; file: FileHandle }> {
    const path = join(this.#root, 'ingest', randomBytes(12).toString('hex'));
    return { path, file: await open(path, 'wx+', 0o600) };
  }

  /**
   * Stores a blob from a stream, with its size and digest verified on the way, and its bytes on disk
   * before it gets its name. The digest must be held by a lease. Without `expected.digest`, the digest is
   * what the bytes say.
   *
   * @returns digest and size
   * @throws BerthError `invalid` when digest or size differ; whatever the source throws. Nothing stays.
   */
  async write(
    source: AsyncIterable<Uint8Array>,
    expected: { digest?: string; size?: number; limit: number },
    { onBytes, hold, growth = new Growth(), isOwner = false }: WriteOptions = {},
  ): Promise<{ digest: string; size: number }> {
    const { path, file } = await this.ingest();
    growth.begin(path);
    const wanted = expected.digest ?? 'sha256:';
    const algorithm = wanted.slice(0, wanted.indexOf(':'));
    const hash = createHash(algorithm);
    const limit = expected.size ?? expected.limit;
    let size = 0;
    const writer = new BatchWriter(file, isOwner, (written) => growth.grow(written));
    try {
      try {
        for await (const chunk of source) {
          size += chunk.length;
          if (size > limit) throw new BerthError('invalid', `blob ${wanted} has more than ${limit} bytes`);
          hash.update(chunk);
          await writer.write(chunk);
          onBytes?.(size);
        }
        await writer.flush();
        await file.sync();
      } finally {
        await writer.settled();
        await file.close();
      }
      const digest = `${algorithm}:${hash.digest('hex')}`;
      if (expected.size !== undefined && size !== expected.size) {
        throw new BerthError('invalid', `blob ${wanted} has ${size} bytes instead of ${expected.size}`);
      }
      if (expected.digest !== undefined && digest !== expected.digest) {
        throw new BerthError('invalid', `blob ${expected.digest} arrived with the digest ${digest}`);
      }
      hold?.(digest);
      this.#adopt(path, digest, size);
      growth.complete(this.path(digest));
      return { digest, size };
    } catch (e: unknown) {
      await rm(path, { force: true });
      throw isErrno(e, 'ENOSPC', 'EDQUOT') ? new BerthError('exhausted', `storing blob: ${e.message}`) : e;
    }
  }

  /** File and record in one turn of the event loop, so that garbage collection sees both or none. */
  #adopt(path: string, digest: string, size: number): void {
    renameSync(path, this.path(digest));
    this.#db.run(
      'INSERT INTO blobs (digest, size) VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size',
      digest,
      BigInt(size),
    );
  }

  /**
   * Removes a blob: its record and name at once, before the first await, so that nobody can begin to rely
   * on it; its bytes afterwards, off the main thread, as unlinking gigabytes takes a while.
   */
  async remove(digest: string): Promise<void> {
    this.#db.run('DELETE FROM blobs WHERE digest = ?', digest);
    const trash = join(this.#root, 'ingest', randomBytes(12).toString('hex'));
    try {
      renameSync(this.path(digest), trash);
    } catch (e: unknown) {
      if (isErrno(e, 'ENOENT')) return;
      throw e;
    }
    await rm(trash, { force: true });
  }

  /**
   * Removes files that no record names, as left by an earlier daemon. What is half fetched is listed before
   * the first await, so fetching may begin at once.
   */
  async sweep(): Promise<void> {
    for (const name of readdirSync(join(this.#root, 'ingest'))) {
      await rm(join(this.#root, 'ingest', name), { force: true });
    }
    for (const algorithm of ['sha256', 'sha512']) {
      for (const hex of await readdir(join(this.#root, 'content', algorithm))) {
        const digest = `${algorithm}:${hex}`;
        const row = this.#db.get('SELECT size FROM blobs WHERE digest = ?', digest);
        // In the same turn, so that it cannot be fetched in between.
        if (row === undefined) await this.remove(digest);
      }
    }
  }
}

/** Bytes that may wait for the write before. */
const BATCH_BYTES = 1024 * 1024;

/**
 * Writes pieces, a socket's of at most 64 KiB, in few calls: while one is under way, those that come are
 * gathered for the next.
 */
class BatchWriter {
  readonly #file: FileHandle;
  readonly #isOwner: boolean;
  readonly #onWritten: (bytes: number) => void;
  #batch: Uint8Array[] = [];
  #bytes = 0;
  #written = 0;
  #writing: Promise<void> | undefined;

  /**
   * @param isOwner written pieces are released
   * @param onWritten called with the bytes in the file so far
   */
  constructor(file: FileHandle, isOwner: boolean, onWritten: (bytes: number) => void) {
    this.#file = file;
    this.#isOwner = isOwner;
    this.#onWritten = onWritten;
  }

  /** @throws SyscallError what a write before this one has met */
  async write(piece: Uint8Array): Promise<void> {
    this.#batch.push(piece);
    this.#bytes += piece.length;
    this.#writing ??= this.#drain();
    // Whoever writes next, or flushes, is told of a failure.
    this.#writing.catch(() => {});
    if (this.#bytes >= BATCH_BYTES) await this.#writing;
  }

  /** All pieces are in the file when this resolves. @throws SyscallError */
  async flush(): Promise<void> {
    await this.#writing;
  }

  /** Resolves when no write is under way, whatever came of it. */
  async settled(): Promise<void> {
    await this.#writing?.catch(() => {});
  }

  /** Not undone after a failure: nothing may follow what was not written. */
  async #drain(): Promise<void> {
    while (this.#bytes > 0) {
      const [batch, bytes] = [this.#batch, this.#bytes];
      this.#batch = [];
      this.#bytes = 0;
      const { bytesWritten } = await this.#file.writev(batch);
      if (bytesWritten < bytes) await writeAll(this.#file, Buffer.concat(batch).subarray(bytesWritten));
      if (this.#isOwner) for (const piece of batch) release(piece);
      this.#written += bytes;
      this.#onWritten(this.#written);
    }
    this.#writing = undefined;
  }
}

/** Writes a whole chunk; a single write(2) may take less. */
export async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
}
