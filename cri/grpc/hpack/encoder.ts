import { type HeaderField, STATIC_TABLE } from './static-table.ts';

/** RFC 7541, 6.3: the encoder's table has no room from now on, which this one does not use anyway. */
export const EMPTY_TABLE: Buffer = Buffer.from([0x20]);

/**
 * A header block that refers to the static table only, so that it is good for every connection and can be
 * encoded ahead. berthd's answers have three headers.
 */
export function encodeHeaders(fields: readonly HeaderField[]): Buffer {
  return Buffer.concat(fields.map(encodeField));
}

function encodeField(field: HeaderField): Buffer {
  const [name, value] = field;
  const whole = STATIC_TABLE.findIndex(([n, v]) => n === name && v === value);
  if (whole >= 0) return integer(0x80, 7, whole + 1);
  const named = STATIC_TABLE.findIndex(([n]) => n === name);
  // Without indexing (RFC 7541, 6.2.2).
  return Buffer.concat([
    ...(named >= 0 ? [integer(0, 4, named + 1)] : [integer(0, 4, 0), text(name)]),
    text(value),
  ]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1');
  return Buffer.concat([integer(0, 7, bytes.length), bytes]);
}

/** RFC 7541, 5.1: `flags` are the bits above the prefix. */
function integer(flags: number, prefixBits: number, value: number): Buffer {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) return Buffer.from([flags | value]);
  const bytes = [flags | mask];
  let rest = value - mask;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return Buffer.from([...bytes, rest]);
}
