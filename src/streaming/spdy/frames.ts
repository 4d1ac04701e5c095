import { SpdyError } from './error.ts';

/** Types of control frames (SPDY protocol draft 3.1, section 2.6). */
export const SYN_STREAM = 1;
export const SYN_REPLY = 2;
export const RST_STREAM = 3;
const SETTINGS = 4;
export const PING = 6;
export const GOAWAY = 7;
export const HEADERS = 8;
const WINDOW_UPDATE = 9;

/** Flag of data and control frames: the sender's last frame of the stream. */
export const FLAG_FIN = 1;

/** Statuses of RST_STREAM. */
export const RST_INVALID_STREAM = 2;
export const RST_REFUSED = 3;
export const RST_CANCEL = 5;
/** Statuses of GOAWAY. */
export const GOAWAY_OK = 0;
export const GOAWAY_PROTOCOL_ERROR = 1;

const VERSION = 3;
const HEADER_SIZE = 8;
const MAX_DATA = 0xffffff;
/** Bytes; the longest control frames are SYN_STREAMs, whose headers have some hundred. */
const MAX_CONTROL = 16 * 1024;

/** Bytes that a control frame of a type has at least, or exactly. */
const SIZES: ReadonlyMap<number, { min: number; exact?: boolean }> = new Map([
  [SYN_STREAM, { min: 10 }],
  [SYN_REPLY, { min: 4 }],
  [RST_STREAM, { min: 8, exact: true }],
  [SETTINGS, { min: 4 }],
  [PING, { min: 4, exact: true }],
  [GOAWAY, { min: 4 }],
  [HEADERS, { min: 4 }],
  [WINDOW_UPDATE, { min: 8, exact: true }],
]);

/** What a parser finds. */
export interface FrameHandler {
  control(type: number, flags: number, payload: Buffer): void;
  /** A piece of a data frame as it comes; `fin` with the last piece of a stream's last frame. */
  data(streamId: number, piece: Buffer, fin: boolean): void;
}

/**
 * Cuts a byte stream into SPDY frames, wherever its chunks begin and end. Of a data frame nothing is kept;
 * of a control frame as much as the longest allowed one.
 */
export class FrameParser {
  readonly #handler: FrameHandler;
  /** The header, or the header and payload of a control frame, as far as it has come. */
  #kept: Buffer = Buffer.alloc(0);
  #need = HEADER_SIZE;
  #data: { streamId: number; left: number; fin: boolean } | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** @throws SpdyError for what is no frame; the parser must not be used after it */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#data !== undefined) {
        at += this.#pushData(this.#data, chunk.subarray(at));
        continue;
      }
      const part = chunk.subarray(at, at + this.#need - this.#kept.length);
      at += part.length;
      this.#kept = this.#kept.length === 0 ? part : Buffer.concat([this.#kept, part]);
      if (this.#kept.length === this.#need) this.#complete();
    }
  }

  #pushData(data: { streamId: number; left: number; fin: boolean }, rest: Buffer): number {
    const piece = rest.subarray(0, data.left);
    data.left -= piece.length;
    if (data.left === 0) this.#data = undefined;
    this.#handler.data(data.streamId, piece, data.fin && data.left === 0);
    return piece.length;
  }

  /** A header, or a control frame with its payload, has come. */
  #complete(): void {
    const frame = this.#kept;
    const word = frame.readUInt32BE(0);
    const flags = frame.readUInt8(4);
    const length = frame.readUIntBE(5, 3);
    if (word >>> 31 === 0) {
      this.#startData(word, length, (flags & FLAG_FIN) !== 0);
      return;
    }
    const type = word & 0xffff;
    if (frame.length === HEADER_SIZE) {
      checkControl((word >>> 16) & 0x7fff, type, length);
      this.#need = HEADER_SIZE + length;
      return;
    }
    this.#kept = Buffer.alloc(0);
    this.#need = HEADER_SIZE;
    // Extensions are to be skipped; settings and window updates are, as the field's peers do not heed them.
    if (SIZES.has(type)) this.#handler.control(type, flags, frame.subarray(HEADER_SIZE));
  }

  #startData(streamId: number, length: number, fin: boolean): void {
    if (streamId === 0) throw new SpdyError('a data frame names stream 0');
    this.#kept = Buffer.alloc(0);
    if (length > 0) this.#data = { streamId, left: length, fin };
    else this.#handler.data(streamId, Buffer.alloc(0), fin);
  }
}

/** Every known control frame has a payload, so one is always waited for. */
function checkControl(version: number, type: number, length: number): void {
  if (version !== VERSION) throw new SpdyError(`a control frame is of version ${version}, not ${VERSION}`);
  if (length > MAX_CONTROL) throw new SpdyError(`a control frame is longer than ${MAX_CONTROL} bytes`);
  const size = SIZES.get(type);
  if (size === undefined ? length === 0 : length < size.min || (size.exact === true && length > size.min)) {
    throw new SpdyError(`a control frame of type ${type} has ${length} bytes`);
  }
}

/** A control frame. */
export function controlFrame(type: number, flags: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt32BE((0x8000_0000 | (VERSION << 16) | type) >>> 0, 0);
  header.writeUInt32BE(((flags << 24) | payload.length) >>> 0, 4);
  return Buffer.concat([header, payload]);
}

/** A control frame whose payload is 32-bit numbers. */
export function numbersFrame(type: number, ...numbers: number[]): Buffer {
  const payload = Buffer.alloc(4 * numbers.length);
  for (const [i, number] of numbers.entries()) payload.writeUInt32BE(number >>> 0, 4 * i);
  return controlFrame(type, 0, payload);
}

/** The header of a data frame, after which its payload is to be sent. */
export function dataHeader(streamId: number, length: number, fin: boolean): Buffer {
  if (length > MAX_DATA) throw new RangeError('a data frame is at most 16 MiB long');
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt32BE(streamId, 0);
  header.writeUInt32BE((((fin ? FLAG_FIN : 0) << 24) | length) >>> 0, 4);
  return header;
}
