import { BerthError } from '../../errors.ts';

/** Text of a header field up to its NUL, one character a byte. */
export function fieldText(block: Buffer, start: number, length: number): string {
  const end = block.indexOf(0, start);
  return block.toString('latin1', start, end === -1 || end > start + length ? start + length : end);
}

/**
 * A number of a header field: octal digits between spaces and NULs, or GNU's base 256 when the first bit
 * is set (negative numbers, which only times may be, too).
 *
 * @throws BerthError `invalid` for anything else, or a number beyond 2^53
 */
export function fieldNumber(block: Buffer, start: number, length: number, field: string): number {
  const first = block[start] ?? 0;
  let value: number;
  if (first & 0x80) {
    value = Number(
      BigInt.asIntN(length * 8 - 1, BigInt(`0x${block.toString('hex', start, start + length)}`)),
    );
  } else {
    const text = block
      .toString('latin1', start, start + length)
      .replace(/^[ \0]+/, '')
      .replace(/[ \0].*$/s, '');
    value = text === '' ? 0 : /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
  }
  if (!Number.isSafeInteger(value) || (value < 0 && field !== 'mtime')) {
    throw new BerthError('invalid', `tar: a header's ${field} is not a number that can be`);
  }
  return value;
}

/**
 * The records of a PAX header: `<length> <key>=<value>\n`, the length counting itself. Values stay bytes.
 *
 * @throws BerthError `invalid` when a record does not have that form
 */
export function parsePax(content: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  const sparse: string[] = [];
  let at = 0;
  // Some writers fill the block with NULs.
  while (at < content.length && content[at] !== 0) {
    const space = content.indexOf(0x20, at);
    const digits = space === -1 || space - at > 8 ? '' : content.toString('latin1', at, space);
    const length = /^\d+$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = content.indexOf(0x3d, space + 1);
    if (length === 0 || end > content.length || content[end - 1] !== 0x0a || equals === -1 || equals >= end) {
      throw new BerthError('invalid', 'tar: a PAX header has a record of the wrong form');
    }
    const key = content.toString('latin1', space + 1, equals);
    // An empty value takes an earlier one back (pax(1)).
    if (equals + 1 === end - 1) records.delete(key);
    else if (SPARSE_ITEM.test(key)) sparse.push(content.toString('latin1', equals + 1, end - 1));
    else records.set(key, Buffer.from(content.subarray(equals + 1, end - 1)));
    at = end;
  }
  if (sparse.length > 0) records.set('GNU.sparse.map', Buffer.from(sparse.join(',')));
  return records;
}

/** In GNU's sparse format 0.0 these are repeated, in turn; 0.1 has the same as one list. */
const SPARSE_ITEM = /^GNU\.sparse\.(offset|numbytes)$/;
