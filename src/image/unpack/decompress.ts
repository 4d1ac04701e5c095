import type { Transform } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { BerthError, isErrno } from '../../errors.ts';
import { release } from '../../util/release.ts';
import { ZstdFrames } from './zstd-frames.ts';

/** How a stream is compressed, told by its first bytes: media types are sometimes wrong, magic never. */
export type Compression = 'gzip' | 'zstd' | 'none';

/** Bytes that `detectCompression` wants to see. */
const MAGIC_BYTES = 4;

/** From the first bytes of a stream; shorter ones count as not compressed. */
export function detectCompression(start: Uint8Array): Compression {
  const [a, b, c, d] = start;
  if (a === 0x1f && b === 0x8b) return 'gzip';
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return 'zstd';
  // A skippable frame may come first (RFC 8878, 3.1.2).
  if (a !== undefined && a >> 4 === 5 && b === 0x2a && c === 0x4d && d === 0x18) return 'zstd';
  return 'none';
}

/**
 * The decompressed bytes of `source`, gzip, zstd or neither by their magic. A piece is good until the next is
 * asked for, and so may be those of `source`. zlib works on libuv's threads,
 * so this overlaps with what the caller does with each chunk.
 *
 * @throws BerthError `invalid` when the compressed data are damaged or end too early
 */
export async function* decompress(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  const start: Buffer[] = [];
  let length = 0;
  while (length < MAGIC_BYTES) {
    const { value, done } = await iterator.next();
    if (done === true) break;
    start.push(value);
    length += value.length;
  }
  const first = Buffer.concat(start);
  const whole = resume(first, iterator);
  const compression = detectCompression(first);
  if (compression === 'none') yield* whole;
  else if (compression === 'gzip') yield* through(createGunzip({ chunkSize: CHUNK }), whole);
  else yield* through(createZstdDecompress({ chunkSize: CHUNK }), zstdPieces(whole));
}

const CHUNK = 128 * 1024;

async function* resume(first: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  if (first.length > 0) yield first;
  for (;;) {
    const { value, done } = await rest.next();
    if (done === true) return;
    yield value;
  }
}

async function* zstdPieces(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const frames = new ZstdFrames();
  for await (const chunk of source) yield* frames.split(chunk);
  if (!frames.atBoundary) throw new BerthError('invalid', 'zstd: the data end in the middle of a frame');
}

/** Writes `source` into `transform`, waiting whenever it is full, and yields what comes out. */
async function* through(transform: Transform, source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const feeding = feed(transform, source);
  // Its failure surfaces through the transform; without this it would count as unhandled meanwhile.
  feeding.catch(() => {});
  try {
    for await (const chunk of transform) {
      yield chunk as Buffer;
      release(chunk as Buffer);
    }
    await feeding;
  } catch (e: unknown) {
    if (
      e instanceof Error &&
      'code' in e &&
      /^(Z_|ZSTD_)/.test(String(e.code)) &&
      !isErrno(e, 'Z_MEM_ERROR')
    ) {
      throw new BerthError('invalid', `compressed data are damaged: ${e.message}`, { cause: e });
    }
    throw e;
  } finally {
    transform.destroy();
  }
}

async function feed(transform: Transform, source: AsyncIterable<Buffer>): Promise<void> {
  try {
    for await (const chunk of source) {
      if (transform.destroyed) return;
      // The callback comes when the piece is taken in, and also when the transform is destroyed.
      await new Promise<void>((resolve) => transform.write(chunk, () => resolve()));
    }
    transform.end();
  } catch (e: unknown) {
    transform.destroy(e instanceof Error ? e : new Error(String(e)));
    throw e;
  }
}
