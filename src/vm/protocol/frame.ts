/**
 * What the host and the agent in a virtual machine say to each other is one byte stream of frames:
 * payload length (u32), type (u8), stream id (u32), payload; numbers are big-endian.
 */

/** A call: JSON `{method, params}`; its id is in the frame's stream id, chosen by the caller. */
export const REQUEST = 1;
/** The answer to the call with this id: JSON `{result}` or `{error: {kind, message}}`. */
export const RESPONSE = 2;
/** What the agent tells unasked: JSON `{event, …}`; the stream id is 0. */
export const EVENT = 3;
/** Raw bytes of a stream, against credit. */
export const DATA = 4;
/** No more data in this direction; with a payload (UTF-8, why) the stream is over in both. */
export const END = 5;
/** Credit: u32, how many bytes more of this stream the sender of the frame can take. */
export const WINDOW = 6;

export type FrameType = 1 | 2 | 3 | 4 | 5 | 6;

export interface Frame {
  readonly type: FrameType;
  /** Of calls and of streams: two spaces of their own. */
  readonly id: number;
  readonly payload: Uint8Array;
}

/** Bytes before the payload. */
export const HEADER_BYTES = 9;
/** A longer payload ends the connection: nothing that speaks this protocol sends one. */
export const MAX_PAYLOAD_BYTES = 1024 * 1024;

/** A frame broke the protocol; the connection cannot be used any more. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** @throws RangeError for a payload over the limit: the caller is to cut it */
export function encodeFrame({ type, id, payload }: Frame): Uint8Array {
  if (payload.length > MAX_PAYLOAD_BYTES) throw new RangeError(`a frame of ${payload.length} bytes`);
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, payload.length);
  view.setUint8(4, type);
  view.setUint32(5, id);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** Cuts a byte stream into frames. */
export class FrameReader {
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerFill = 0;
  /** Whose header has been read. */
  #frame: Frame | undefined;
  #payloadFill = 0;

  /**
   * The frames that are complete with this chunk. Payloads are copies: the chunk may be used again.
   *
   * @throws ProtocolError for an unknown type or a length over the limit; what follows cannot be read
   */
  push(chunk: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    let at = 0;
    while (at < chunk.length) {
      if (this.#frame === undefined) {
        const part = chunk.subarray(at, at + HEADER_BYTES - this.#headerFill);
        this.#header.set(part, this.#headerFill);
        this.#headerFill += part.length;
        at += part.length;
        if (this.#headerFill < HEADER_BYTES) break;
        this.#frame = begin(this.#header);
        this.#headerFill = 0;
        this.#payloadFill = 0;
      }
      const { payload } = this.#frame;
      const part = chunk.subarray(at, at + payload.length - this.#payloadFill);
      payload.set(part, this.#payloadFill);
      this.#payloadFill += part.length;
      at += part.length;
      if (this.#payloadFill < payload.length) break;
      frames.push(this.#frame);
      this.#frame = undefined;
    }
    return frames;
  }
}

/** The frame that a header announces, its payload yet to be filled. */
function begin(header: Uint8Array): Frame {
  const view = new DataView(header.buffer);
  const [length, type] = [view.getUint32(0), view.getUint8(4)];
  if (!isFrameType(type)) throw new ProtocolError(`a frame of type ${type}`);
  if (length > MAX_PAYLOAD_BYTES) throw new ProtocolError(`a frame of ${length} bytes`);
  return { type, id: view.getUint32(5), payload: new Uint8Array(length) };
}

function isFrameType(type: number): type is FrameType {
  return type >= REQUEST && type <= WINDOW;
}
