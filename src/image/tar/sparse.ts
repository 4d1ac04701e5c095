import { BerthError } from '../../errors.ts';
import { fieldNumber } from './header.ts';

/** A part of a sparse file that is stored; all else of it is zeros. Bytes. */
export interface Segment {
  offset: number;
  length: number;
}

/** Parts of one file; GNU tar writes one for each run of data, seldom more than thousands. */
export const MAX_SEGMENTS = 100_000;
const ENTRY_BYTES = 24;
/** Of the list in a header, and in each block that continues it (GNU tar manual, "Old GNU Format"). */
const HEADER_LIST = { start: 386, entries: 4, more: 482 };
const BLOCK_LIST = { start: 0, entries: 21, more: 504 };
const REAL_SIZE = 483;
const NEWLINE = 0x0a;

/** The parts that one block of the old GNU format lists, and whether another block follows. */
export function oldGnuSegments(block: Buffer, isHeader: boolean): { segments: Segment[]; more: boolean } {
  const { start, entries, more } = isHeader ? HEADER_LIST : BLOCK_LIST;
  const segments: Segment[] = [];
  for (let i = 0; i < entries; i++) {
    const at = start + i * ENTRY_BYTES;
    // A list ends at the first entry that is empty.
    if (block[at] === 0) break;
    segments.push({
      offset: fieldNumber(block, at, 12, 'sparse offset'),
      length: fieldNumber(block, at + 12, 12, 'sparse length'),
    });
  }
  return { segments, more: block[more] !== 0 };
}

/** Bytes of the whole file, in the old GNU format. */
export function oldGnuSize(header: Buffer): number {
  return fieldNumber(header, REAL_SIZE, 12, 'sparse size');
}

/** The list of PAX format 0.1: `offset,length,offset,length`. */
export function paxSegments(map: string): Segment[] {
  return pairs(map === '' ? [] : map.split(','));
}

/**
 * The list of PAX format 1.0, which stands before the content: lines with the number of parts, then offset
 * and length of each, filled up to whole blocks.
 */
export class LeadingList {
  readonly #blocks: Buffer[] = [];
  #lines = 0;
  #wanted: number | undefined;

  /** One more block. @returns the parts when it was the last */
  push(block: Buffer): Segment[] | undefined {
    this.#blocks.push(Buffer.from(block));
    for (let at = block.indexOf(NEWLINE); at !== -1; at = block.indexOf(NEWLINE, at + 1)) this.#lines += 1;
    this.#wanted ??= 1 + 2 * number(block.toString('latin1').split('\n', 1)[0] ?? '');
    if (this.#wanted > 1 + 2 * MAX_SEGMENTS) throw broken(`has more than ${MAX_SEGMENTS} parts`);
    if (this.#lines < this.#wanted) return undefined;
    return pairs(Buffer.concat(this.#blocks).toString('latin1').split('\n', this.#wanted).slice(1));
  }
}

/** @throws BerthError `invalid` unless the parts follow each other inside of the file and make up the content */
export function checkSegments(segments: readonly Segment[], realSize: number, stored: number): void {
  if (segments.length > MAX_SEGMENTS) throw broken(`has more than ${MAX_SEGMENTS} parts`);
  let end = 0;
  let sum = 0;
  for (const { offset, length } of segments) {
    if (offset < end || !Number.isSafeInteger(offset + length)) throw broken('has parts out of order');
    end = offset + length;
    sum += length;
  }
  if (end > realSize) throw broken('has parts beyond its end');
  if (sum !== stored) throw broken(`has parts of ${sum} bytes, but ${stored} bytes of content`);
}

function pairs(numbers: readonly string[]): Segment[] {
  if (numbers.length % 2 !== 0) throw broken('has a list of parts that ends early');
  return Array.from({ length: numbers.length / 2 }, (_, i) => ({
    offset: number(numbers[2 * i] ?? ''),
    length: number(numbers[2 * i + 1] ?? ''),
  }));
}

function number(text: string): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(value)) throw broken('has a list of parts with what is no number');
  return value;
}

function broken(problem: string): BerthError {
  return new BerthError('invalid', `tar: a sparse file ${problem}`);
}
