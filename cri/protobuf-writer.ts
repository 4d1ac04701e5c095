import type { ByteWriter } from '../src/util/byte-writer.ts';

/** Tags of fields: their number × 8 + the wire type. */
const varintTag = (field: number) => field << 3;
const bytesTag = (field: number) => (field << 3) | 2;
/** A tag, and the longest varint. */
const MAX_VARINT_FIELD = 11;

/**
 * A varint field (protobuf.dev, "Encoding"): int64, uint64, enum, not negative. Zero is the default, which
 * is not written.
 */
export function varintField(field: number, value: bigint): Buffer {
  if (value === 0n) return Buffer.alloc(0);
  const buffer = Buffer.allocUnsafe(MAX_VARINT_FIELD);
  let at = putSmall(buffer, 0, varintTag(field));
  let rest = value;
  for (; rest > 0x7fff_ffffn; rest >>= 7n) buffer[at++] = Number(rest & 0x7fn) | 0x80;
  at = putSmall(buffer, at, Number(rest));
  return buffer.subarray(0, at);
}

/** A message field whose encoding is that of these parts, one after the other. */
export function writeMessage(to: ByteWriter, field: number, parts: readonly Uint8Array[]): void {
  let length = 0;
  for (const part of parts) length += part.length;
  writeSmall(to, bytesTag(field));
  writeSmall(to, length);
  for (const part of parts) to.bytes(part);
}

function writeSmall(to: ByteWriter, value: number): void {
  let rest = value;
  for (; rest > 0x7f; rest >>>= 7) to.byte((rest & 0x7f) | 0x80);
  to.byte(rest);
}

/** A field of text, bytes or messages that are encoded already, once for each. */
export function bytesFields(field: number, values: readonly Uint8Array[]): Buffer {
  const size = values.reduce((total, { length }) => total + length + MAX_VARINT_FIELD, 0);
  const buffer = Buffer.allocUnsafe(size);
  let at = 0;
  for (const value of values) {
    at = putSmall(buffer, at, bytesTag(field));
    at = putSmall(buffer, at, value.length);
    buffer.set(value, at);
    at += value.length;
  }
  return buffer.subarray(0, at);
}

/** The same for texts. */
export function textFields(field: number, values: readonly string[]): Buffer {
  return bytesFields(
    field,
    values.map((value) => Buffer.from(value)),
  );
}

/** Puts a varint below 2^31 at `at`. @returns where it ends */
function putSmall(buffer: Buffer, at: number, value: number): number {
  let rest = value;
  let end = at;
  for (; rest > 0x7f; rest >>>= 7) buffer[end++] = (rest & 0x7f) | 0x80;
  buffer[end++] = rest;
  return end;
}
