import { ConnectionError, ErrorCode } from './errors.ts';

/** RFC 9113, 6. */
export const FrameType = {
  DATA: 0x0,
  HEADERS: 0x1,
  PRIORITY: 0x2,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PUSH_PROMISE: 0x5,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
  CONTINUATION: 0x9,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export const Flag = {
  NONE: 0,
  ACK: 0x1,
  END_STREAM: 0x1,
  END_HEADERS: 0x4,
  PADDED: 0x8,
  PRIORITY: 0x20,
} as const;

/** RFC 9113, 6.5.1. */
export const Setting = {
  HEADER_TABLE_SIZE: 0x1,
  ENABLE_PUSH: 0x2,
  MAX_CONCURRENT_STREAMS: 0x3,
  INITIAL_WINDOW_SIZE: 0x4,
  MAX_FRAME_SIZE: 0x5,
  MAX_HEADER_LIST_SIZE: 0x6,
} as const;

/** What a client sends first (RFC 9113, 3.4). */
export const PREFACE: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
export const HEADER_BYTES = 9;
/** Of a frame's payload, bytes, until a peer's settings say otherwise; berthd's leave it. */
export const DEFAULT_MAX_FRAME = 16_384;
/** The highest bit of stream ids and window increments is reserved. */
const MAX_31_BITS = 0x7fff_ffff;

/** A frame that came, of a known type or not. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  /** 0: of the connection */
  readonly streamId: number;
  readonly payload: Buffer;
}

/** Cuts what a client sends into frames. */
export class FrameReader {
  #parts: Buffer[] = [];
  #held = 0;
  #wanted = PREFACE.length;
  #hasPreface = false;

  /**
   * Yields the frames that are complete with these bytes, each as it is reached.
   *
   * @throws ConnectionError for what is no HTTP/2 and for a frame beyond the limit
   */
  *push(bytes: Buffer): Generator<Frame> {
    this.#parts.push(bytes);
    this.#held += bytes.length;
    if (this.#held < this.#wanted) return;
    let all = this.#parts.length === 1 ? bytes : Buffer.concat(this.#parts);
    this.#wanted = HEADER_BYTES;
    if (!this.#hasPreface) {
      if (!all.subarray(0, PREFACE.length).equals(PREFACE)) {
        throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'the client does not speak HTTP/2');
      }
      this.#hasPreface = true;
      all = all.subarray(PREFACE.length);
    }
    while (all.length >= HEADER_BYTES) {
      const length = all.readUIntBE(0, 3);
      if (length > DEFAULT_MAX_FRAME) {
        throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, `a frame of ${length} bytes`);
      }
      this.#wanted = HEADER_BYTES + length;
      if (all.length < this.#wanted) break;
      const frame = {
        type: all.readUInt8(3),
        flags: all.readUInt8(4),
        streamId: all.readUInt32BE(5) & MAX_31_BITS,
        payload: all.subarray(HEADER_BYTES, this.#wanted),
      };
      all = all.subarray(this.#wanted);
      this.#wanted = HEADER_BYTES;
      yield frame;
    }
    this.#parts = all.length === 0 ? [] : [all];
    this.#held = all.length;
  }
}

/** The nine bytes before a payload. */
export function frameHeader(length: number, type: FrameType, flags: number, streamId: number): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header.writeUIntBE(length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(streamId, 5);
  return header;
}

/** A whole frame. */
export function frame(type: FrameType, flags: number, streamId: number, payload: Uint8Array): Buffer {
  return Buffer.concat([frameHeader(payload.length, type, flags, streamId), payload]);
}

/** The payload of frames that hold one number, or a few. */
export function words(...values: number[]): Buffer {
  const payload = Buffer.allocUnsafe(values.length * 4);
  values.forEach((value, i) => void payload.writeUInt32BE(value, i * 4));
  return payload;
}

/** @param payload of SETTINGS: two bytes of name and four of value each */
export function* settingsOf(payload: Buffer): Generator<[name: number, value: number]> {
  if (payload.length % 6 !== 0)
    throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'SETTINGS of odd length');
  for (let at = 0; at < payload.length; at += 6)
    yield [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
}

/** The frame of berthd's settings. */
export function settingsFrame(settings: readonly (readonly [name: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(settings.length * 6);
  settings.forEach(([name, value], i) => {
    payload.writeUInt16BE(name, i * 6);
    payload.writeUInt32BE(value, i * 6 + 2);
  });
  return frame(FrameType.SETTINGS, Flag.NONE, 0, payload);
}

/**
 * The payload of DATA or HEADERS without padding and priority (RFC 9113, 6.1, 6.2).
 *
 * @throws ConnectionError PROTOCOL_ERROR when the padding is as long as all of it
 */
export function unpadded({ type, flags, payload }: Frame): Buffer {
  let start = 0;
  let end = payload.length;
  if (flags & Flag.PADDED) {
    end -= payload[0] ?? 1;
    start++;
  }
  if (type === FrameType.HEADERS && flags & Flag.PRIORITY) start += 5;
  if (start > end) throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'padding longer than its frame');
  return payload.subarray(start, end);
}
