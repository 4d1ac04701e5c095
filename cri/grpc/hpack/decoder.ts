import { ConnectionError, ErrorCode } from '../http2/errors.ts';
import { decodeHuffman } from './huffman.ts';
import { type HeaderField, STATIC_TABLE } from './static-table.ts';

/** Of the dynamic table, bytes: HTTP/2's default, which berthd's settings leave as it is. */
const MAX_TABLE_BYTES = 4096;
/** What an entry counts beside its name and value (RFC 7541, 4.1; RFC 9113, 10.5.1). */
const FIELD_OVERHEAD = 32;

/** Decodes the header blocks of one connection, which must come in order: the encoder refers to earlier ones. */
export class HpackDecoder {
  /** The newest first. */
  readonly #table: HeaderField[] = [];
  readonly #maxListBytes: number;
  #tableBytes = 0;
  #maxTableBytes = MAX_TABLE_BYTES;

  /** @param maxListBytes of one block's fields, each with 32 bytes more than its name and value */
  constructor(maxListBytes: number) {
    this.#maxListBytes = maxListBytes;
  }

  /**
   * @throws ConnectionError COMPRESSION_ERROR for a broken block, ENHANCE_YOUR_CALM for one that is too large;
   *   either way the table is not the encoder's any more
   */
  decode(block: Buffer): HeaderField[] {
    const cursor = new Cursor(block);
    const fields: HeaderField[] = [];
    let bytes = 0;
    while (!cursor.atEnd) {
      const field = this.#next(cursor, fields.length === 0);
      if (field === undefined) continue;
      bytes += sizeOf(field);
      if (bytes > this.#maxListBytes) {
        throw new ConnectionError(
          ErrorCode.ENHANCE_YOUR_CALM,
          `headers of more than ${this.#maxListBytes} bytes`,
        );
      }
      fields.push(field);
    }
    return fields;
  }

  /** @returns undefined for an instruction that is no field */
  #next(cursor: Cursor, isFirst: boolean): HeaderField | undefined {
    const first = cursor.peek();
    if (first & 0x80) return this.#entry(cursor.integer(7));
    if (first & 0x40) {
      const field = this.#literal(cursor, 6);
      this.#add(field);
      return field;
    }
    // Never indexed, or not this time: the same to a reader.
    if ((first & 0x20) === 0) return this.#literal(cursor, 4);
    if (!isFirst) throw broken('a change of the table after a field');
    const size = cursor.integer(5);
    if (size > MAX_TABLE_BYTES) throw broken(`a table of ${size} bytes`);
    this.#maxTableBytes = size;
    this.#evict(0);
    return undefined;
  }

  #literal(cursor: Cursor, prefixBits: number): HeaderField {
    const index = cursor.integer(prefixBits);
    const name = index === 0 ? cursor.text() : this.#entry(index)[0];
    return [name, cursor.text()];
  }

  #entry(index: number): HeaderField {
    const field = STATIC_TABLE[index - 1] ?? this.#table[index - 1 - STATIC_TABLE.length];
    if (field === undefined) throw broken(`no entry ${index}`);
    return field;
  }

  #add(field: HeaderField): void {
    const size = sizeOf(field);
    this.#evict(size);
    // One that is larger than the table empties it (RFC 7541, 4.4).
    if (size > this.#maxTableBytes) return;
    this.#table.unshift(field);
    this.#tableBytes += size;
  }

  /** Makes room for so many bytes, as far as that goes. */
  #evict(room: number): void {
    while (this.#tableBytes + room > this.#maxTableBytes) {
      const oldest = this.#table.pop();
      if (oldest === undefined) return;
      this.#tableBytes -= sizeOf(oldest);
    }
  }
}

function sizeOf([name, value]: HeaderField): number {
  return name.length + value.length + FIELD_OVERHEAD;
}

function broken(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.COMPRESSION_ERROR, `HPACK: ${what}`);
}

/** Reads HPACK's two primitives (RFC 7541, 5). */
class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  peek(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw broken('the block ends within a field');
    return byte;
  }

  /** @param prefixBits the lower bits of the next byte that belong to it */
  integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = this.#take() & mask;
    if (value < mask) return value;
    // More than three bytes are no size of anything here.
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.#take();
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw broken('an integer beyond all bounds');
  }

  text(): string {
    const isCoded = (this.peek() & 0x80) !== 0;
    const length = this.integer(7);
    const end = this.#at + length;
    if (end > this.#bytes.length) throw broken('the block ends within a text');
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return isCoded ? decodeHuffman(bytes) : bytes.toString('latin1');
  }

  #take(): number {
    const byte = this.peek();
    this.#at++;
    return byte;
  }
}
