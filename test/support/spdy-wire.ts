import { constants, createDeflate, createInflate, type Deflate, type Inflate } from 'node:zlib';

/** One frame as it is on the wire. */
export interface WireFrame {
  /** A control frame's type; undefined for data. */
  type?: number;
  flags: number;
  /** Of a data frame; of a control frame the first number of its payload. */
  stream: number;
  payload: Buffer;
}

/**
 * SPDY/3 as clients write it: headers through one zlib stream with the dictionary, real compression and
 * sync flushes. It shares no code with the server's side.
 */
export class WireClient {
  readonly #deflate: Deflate;
  readonly #inflate: Inflate;

  constructor(dictionary: Buffer) {
    this.#deflate = createDeflate({ dictionary });
    this.#inflate = createInflate({ dictionary });
  }

  /** A SYN_STREAM with these headers. */
  async synStream(id: number, headers: Record<string, string>, flags = 0): Promise<Buffer> {
    const words = [uint32(Object.keys(headers).length)];
    for (const [name, value] of Object.entries(headers)) {
      words.push(uint32(Buffer.byteLength(name)), Buffer.from(name));
      words.push(uint32(Buffer.byteLength(value)), Buffer.from(value));
    }
    const block = await through(this.#deflate, Buffer.concat(words));
    return control(1, flags, Buffer.concat([uint32(id), uint32(0), Buffer.from([0, 0]), block]));
  }

  /** The headers of a SYN_REPLY that the server sent; they must be read in the order of their coming. */
  async headersOf(reply: WireFrame): Promise<Record<string, string>> {
    const block = await through(this.#inflate, reply.payload.subarray(4));
    const headers: Record<string, string> = {};
    let at = 4;
    const word = () => {
      const length = block.readUInt32BE(at);
      at += 4 + length;
      return block.toString('utf8', at - length, at);
    };
    for (let left = block.readUInt32BE(0); left > 0; left--) headers[word()] = word();
    return headers;
  }
}

/** A control frame of version 3. */
export function control(type: number, flags: number, payload: Buffer): Buffer {
  const length = uint32(payload.length);
  length[0] = flags;
  return Buffer.concat([Buffer.from([0x80, 3, type >> 8, type & 255]), length, payload]);
}

/** A data frame. */
export function data(stream: number, payload: string | Buffer, fin = false): Buffer {
  const bytes = Buffer.from(payload);
  const length = uint32(bytes.length);
  length[0] = fin ? 1 : 0;
  return Buffer.concat([uint32(stream), length, bytes]);
}

export function uint32(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number >>> 0);
  return bytes;
}

/** Cuts a byte stream into frames; what is not whole yet is kept. */
export class WireReader {
  #rest = Buffer.alloc(0);

  push(chunk: Buffer): WireFrame[] {
    const frames: WireFrame[] = [];
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 8) {
      const length = this.#rest.readUIntBE(5, 3);
      if (this.#rest.length < 8 + length) break;
      const word = this.#rest.readUInt32BE(0);
      const flags = this.#rest.readUInt8(4);
      const payload = Buffer.from(this.#rest.subarray(8, 8 + length));
      this.#rest = this.#rest.subarray(8 + length);
      if (word < 0x8000_0000) frames.push({ flags, stream: word, payload });
      else frames.push({ type: word & 0xffff, flags, stream: payload.readUInt32BE(0), payload });
    }
    return frames;
  }
}

function through(coder: Deflate | Inflate, input: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const take = (part: Buffer) => parts.push(part);
    coder.on('data', take);
    coder.once('error', reject);
    coder.write(input);
    coder.flush(constants.Z_SYNC_FLUSH, () => {
      coder.off('data', take);
      coder.off('error', reject);
      resolve(Buffer.concat(parts));
    });
  });
}
