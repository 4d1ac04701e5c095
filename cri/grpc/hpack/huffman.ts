import { ConnectionError, ErrorCode } from '../http2/errors.ts';

/**
 * The length in bits of the code of each byte (RFC 7541, Appendix B). The code is canonical: codes of one length
 * are consecutive in the order of their bytes, so that the lengths say it all.
 */
const LENGTHS: readonly number[] = [
  ...[13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28],
  ...[28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6],
  ...[6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8],
  ...[7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7],
  ...[7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23],
  ...[24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22],
  ...[23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25],
  ...[26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24],
  ...[20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27],
  ...[27, 27, 27, 26],
];
const MAX_LENGTH = 30;

/** By length: the first code, and the bytes that have codes of that length. */
const ROWS = rows();

function rows(): readonly { first: number; bytes: readonly number[] }[] {
  const all: { first: number; bytes: number[] }[] = [];
  let next = 0;
  for (let length = 0; length <= MAX_LENGTH; length++) {
    next *= 2;
    const bytes = [...LENGTHS.keys()].filter((byte) => LENGTHS[byte] === length);
    all.push({ first: next, bytes });
    next += bytes.length;
  }
  return all;
}

/**
 * @returns the text, each byte one character
 * @throws ConnectionError COMPRESSION_ERROR for what no encoder makes
 */
export function decodeHuffman(coded: Uint8Array): string {
  let text = '';
  let [code, length] = [0, 0];
  for (const byte of coded) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((byte >> bit) & 1);
      length++;
      const row = ROWS[length];
      // The end-of-string symbol, 30 ones, must not occur (RFC 7541, 5.2).
      if (row === undefined) throw broken('a code that is no byte');
      const found = row.bytes[code - row.first];
      if (found === undefined) continue;
      text += String.fromCharCode(found);
      [code, length] = [0, 0];
    }
  }
  // What is left is padding: fewer than eight bits, all ones.
  if (length > 7 || code !== 2 ** length - 1) throw broken('wrong padding');
  return text;
}

function broken(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.COMPRESSION_ERROR, `Huffman: ${what}`);
}
