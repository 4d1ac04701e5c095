import { read } from 'node:fs';
import type { Readable } from 'node:stream';

/** Bytes of one notice: how much of the file can be read, as an unsigned little-endian number. */
const NOTICE_BYTES = 8;

/** A notice that `bytes` of the file can be read. */
export function notice(bytes: number): Buffer {
  const buffer = Buffer.alloc(NOTICE_BYTES);
  buffer.writeBigUInt64LE(BigInt(bytes));
  return buffer;
}

/**
 * The bytes of a file that another process is writing, as its notices say how far it is. Each piece is good
 * until the next is asked for, as all are read into the same memory.
 *
 * @param size bytes of the whole file, after which it ends
 * @throws Error when the notices end before that: the writer is gone
 */
export async function* follow(
  fd: number,
  notices: Readable,
  size: number,
  chunkSize: number,
): AsyncGenerator<Buffer> {
  let at = 0;
  let rest: Buffer = Buffer.alloc(0);
  const memory = Buffer.allocUnsafe(chunkSize);
  if (size === 0) return;
  for await (const data of notices) {
    const all = Buffer.concat([rest, data as Buffer]);
    const whole = all.length - (all.length % NOTICE_BYTES);
    rest = all.subarray(whole);
    if (whole === 0) continue;
    // Only the last counts: each says more than those before.
    const available = Number(all.readBigUInt64LE(whole - NOTICE_BYTES));
    while (at < available) {
      const chunk = await readAt(fd, memory.subarray(0, Math.min(chunkSize, available - at)), at);
      if (chunk.length === 0) throw new Error('the blob is shorter than announced');
      at += chunk.length;
      yield chunk;
    }
    if (at >= size) return;
  }
  throw new Error('berthd is gone');
}

function readAt(fd: number, into: Buffer, position: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    read(fd, into, 0, into.length, position, (e, bytes) => {
      if (e === null) resolve(into.subarray(0, bytes));
      else reject(e);
    });
  });
}
