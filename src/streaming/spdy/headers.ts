import { inflateRawSync, constants as zlib } from 'node:zlib';
import { DICTIONARY_ID, headerDictionary } from './dictionary.ts';
import { SpdyError } from './error.ts';

/** Names are lower case; of a name sent with several values (NUL between them) the first counts. */
export type Headers = ReadonlyMap<string, string>;

/** Bytes of one header block, uncompressed; Kubernetes' clients send some hundred. */
const MAX_BLOCK = 16 * 1024;
/** How far back deflate can refer (RFC 1951). */
const WINDOW = 32 * 1024;
/** A stored block of deflate holds at most this (RFC 1951, section 3.2.4). */
const MAX_STORED = 0xffff;
const ZLIB_HEADER_SIZE = 6;

/**
 * Reads the header blocks of one direction of a SPDY/3 connection. They are one zlib stream, cut by sync
 * flushes. At such a cut the state of a decompressor is but its window, so each block is read by itself
 * with the last 32 KiB as the dictionary: synchronous, and bounded by what zlib is told to give at most.
 */
export class HeaderReader {
  #window: Buffer | undefined;

  /** @throws SpdyError for what is no header block, or too large a one */
  read(compressed: Buffer): Headers {
    const raw = this.#window === undefined ? afterZlibHeader(compressed) : compressed;
    const window = this.#window ?? headerDictionary();
    let block: Buffer;
    try {
      block = inflateRawSync(raw, {
        dictionary: window,
        finishFlush: zlib.Z_SYNC_FLUSH,
        maxOutputLength: MAX_BLOCK,
      });
    } catch (e: unknown) {
      throw new SpdyError('a header block is not compressed as agreed, or too large', { cause: e });
    }
    this.#window = Buffer.concat([window, block]).subarray(-WINDOW);
    return parseBlock(block);
  }
}

/**
 * Writes the header blocks of the other direction. What this side has to say is so little that stored
 * (uncompressed) deflate blocks do.
 */
export class HeaderWriter {
  #begun = false;

  write(headers: Headers): Buffer {
    const block = formatBlock(headers);
    if (block.length > MAX_STORED) throw new RangeError('the headers are too large');
    const stored = Buffer.alloc(5);
    stored.writeUInt16LE(block.length, 1);
    stored.writeUInt16LE(~block.length & 0xffff, 3);
    const begin = this.#begun ? Buffer.alloc(0) : zlibHeader();
    this.#begun = true;
    return Buffer.concat([begin, stored, block, SYNC_FLUSH]);
  }
}

/** An empty stored block: by it Go's decompressor knows that it need not wait for more. */
const SYNC_FLUSH = Buffer.from([0, 0, 0, 0xff, 0xff]);

/** CMF and FLG with FDICT set, and the dictionary's id (RFC 1950, section 2.2). */
function zlibHeader(): Buffer {
  const header = Buffer.from([0x78, 0xbb, 0, 0, 0, 0]);
  header.writeUInt32BE(DICTIONARY_ID, 2);
  return header;
}

function afterZlibHeader(stream: Buffer): Buffer {
  const valid =
    stream.length >= ZLIB_HEADER_SIZE &&
    (stream.readUInt8(0) & 0x0f) === 8 &&
    stream.readUInt16BE(0) % 31 === 0 &&
    (stream.readUInt8(1) & 0x20) !== 0 &&
    stream.readUInt32BE(2) === DICTIONARY_ID;
  if (!valid)
    throw new SpdyError('the first header block does not begin a zlib stream with SPDY/3’s dictionary');
  return stream.subarray(ZLIB_HEADER_SIZE);
}

function parseBlock(block: Buffer): Headers {
  const headers = new Map<string, string>();
  let at = 0;
  const number = (): number => {
    if (at + 4 > block.length) throw new SpdyError('a header block ends too early');
    at += 4;
    return block.readUInt32BE(at - 4);
  };
  const text = (): string => {
    const length = number();
    if (length > block.length - at) throw new SpdyError('a header block ends too early');
    at += length;
    return block.toString('utf8', at - length, at);
  };
  for (let left = number(); left > 0; left--) {
    const name = text().toLowerCase();
    const value = text().split('\0', 1)[0] ?? '';
    if (name === '' || headers.has(name)) throw new SpdyError('a header’s name is empty or comes twice');
    headers.set(name, value);
  }
  return headers;
}

function formatBlock(headers: Headers): Buffer {
  const parts: Buffer[] = [lengthOf(headers.size)];
  for (const entry of headers) {
    for (const word of entry) {
      const bytes = Buffer.from(word);
      parts.push(lengthOf(bytes.length), bytes);
    }
  }
  return Buffer.concat(parts);
}

function lengthOf(length: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(length);
  return bytes;
}
