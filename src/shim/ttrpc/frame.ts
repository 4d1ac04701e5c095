import { BerthError } from '../../errors.ts';

/**
 * ttrpc's frames (containerd/ttrpc, PROTOCOL.md): length of the data u32, stream id u32, type u8, flags u8, all
 * big-endian, then the data.
 */
export interface Frame {
  streamId: number;
  type: number;
  flags: number;
  data: Buffer;
}

/** Values of {@link Frame.type}. */
export const REQUEST = 1;
export const RESPONSE = 2;
export const DATA = 3;

export const HEADER_BYTES = 10;
/** Of the data of one frame, bytes. */
export const MAX_DATA_BYTES = 4 * 1024 * 1024;

/** @throws BerthError `exhausted` for more data than a frame holds */
export function encodeFrame({ streamId, type, flags, data }: Frame): Buffer {
  if (data.length > MAX_DATA_BYTES) {
    throw new BerthError('exhausted', `a ttrpc message of ${data.length} bytes: at most 4 MiB go into one`);
  }
  const frame = Buffer.allocUnsafe(HEADER_BYTES + data.length);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(streamId, 4);
  frame.writeUInt8(type, 8);
  frame.writeUInt8(flags, 9);
  data.copy(frame, HEADER_BYTES);
  return frame;
}

/** Cuts a stream of bytes into frames, however it was cut into chunks. Holds at most one frame. */
export class FrameReader {
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerFilled = 0;
  #data: Buffer | undefined;
  #dataFilled = 0;

  /**
   * The frames that end in this chunk.
   *
   * @throws BerthError `internal` for a frame that is too large; the stream cannot be read any further
   */
  push(chunk: Buffer): Frame[] {
    const frames: Frame[] = [];
    let at = 0;
    for (;;) {
      if (this.#data === undefined) {
        at += this.#fillHeader(chunk.subarray(at));
        if (this.#headerFilled < HEADER_BYTES) return frames;
        this.#data = Buffer.allocUnsafe(this.#length());
        this.#dataFilled = 0;
      }
      const copied = chunk.copy(this.#data, this.#dataFilled, at);
      at += copied;
      this.#dataFilled += copied;
      if (this.#dataFilled < this.#data.length) return frames;
      frames.push(this.#take(this.#data));
    }
  }

  #fillHeader(chunk: Buffer): number {
    const copied = chunk.copy(this.#header, this.#headerFilled);
    this.#headerFilled += copied;
    return copied;
  }

  #length(): number {
    const length = this.#header.readUInt32BE(0);
    if (length <= MAX_DATA_BYTES) return length;
    throw new BerthError('internal', `a ttrpc message of ${length} bytes came: at most 4 MiB are allowed`);
  }

  #take(data: Buffer): Frame {
    this.#data = undefined;
    this.#headerFilled = 0;
    const header = this.#header;
    return { streamId: header.readUInt32BE(4), type: header.readUInt8(8), flags: header.readUInt8(9), data };
  }
}
