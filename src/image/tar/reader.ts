import { BerthError } from '../../errors.ts';
import { fieldNumber, fieldText, parsePax } from './header.ts';
import {
  checkSegments,
  LeadingList,
  MAX_SEGMENTS,
  oldGnuSegments,
  oldGnuSize,
  paxSegments,
  type Segment,
} from './sparse.ts';

/**
 * A tar reader for layers and image archives.
 *
 * It is berth's own because names and extended attributes are bytes: tar-stream decodes PAX records as
 * UTF-8, which silently corrupts a binary value such as `security.capability` (any byte above 0x7f). Names
 * are kept as "latin1" text, one character a byte, and become Buffers at the file system.
 *
 * Synchronous and push-driven: whoever has bytes calls `push`; the handler is called back in order.
 */

export type TarType =
  | 'file'
  | 'hardlink'
  | 'symlink'
  | 'character-device'
  | 'block-device'
  | 'directory'
  | 'fifo';

export interface TarEntry {
  /** Bytes as latin1 text, as in the archive: may be absolute, may contain `..`. */
  name: string;
  type: TarType;
  /** Target of a hardlink or symlink, latin1 text; empty for others. */
  linkname: string;
  /** Permission bits with setuid, setgid and sticky. */
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of content that follow; 0 for all but files. */
  size: number;
  /** Of a sparse file: where the content's parts belong, and the bytes of the whole file. */
  sparse?: { segments: readonly Segment[]; realSize: number };
  /** Nanoseconds since 1970. */
  mtime: bigint;
  devMajor: number;
  devMinor: number;
  /** Extended attributes by name (latin1 text), values byte for byte. */
  xattrs: Map<string, Buffer>;
  /** Where the content begins in the tar stream, in bytes. */
  offset: number;
}

/** What is done with the entries. Errors thrown from here stop the reading and reach the caller of `push`. */
export interface TarHandler {
  entry(entry: TarEntry): void;
  /** A piece of the content of the last entry. The chunk is only valid during the call. */
  data(chunk: Buffer): void;
  /** The content of the last entry is complete. */
  end(): void;
}

const BLOCK = 512;
/** Bytes of one PAX or GNU long-name header; Go's archive/tar, which made most layers, has the same bound. */
const MAX_EXTENSION = 1024 * 1024;
const MAX_NAME = 4096;

const TYPES: Readonly<Record<string, TarType>> = {
  '\0': 'file',
  '0': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
  '7': 'file',
  S: 'file',
};

/**
 * What is being read: a header, an entry's content, an extension's content, the list of a sparse file's parts
 * (in blocks after its header or before its content), or padding to be dropped.
 */
type State = 'header' | 'content' | 'extension' | 'oldSparse' | 'sparse' | 'padding' | 'ended';

export class TarReader {
  readonly #handler: TarHandler;
  #state: State = 'header';
  /** Bytes of a header or extension gathered so far. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  /** Bytes that the present state still wants. */
  #wanted = BLOCK;
  #padding = 0;
  #extensionType = '';
  #pax = new Map<string, Buffer>();
  #longName: string | undefined;
  #longLink: string | undefined;
  #offset = 0;
  /** A sparse file whose list of parts is being read. */
  #sparse: { entry: TarEntry; segments: Segment[]; list: LeadingList; realSize: number } | undefined;

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  /** Reads on. @throws BerthError `invalid` when this is no tar archive, or what the handler throws. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && this.#state !== 'ended') {
      const piece = chunk.subarray(at, Math.min(chunk.length, at + this.#wanted));
      at += piece.length;
      this.#offset += piece.length;
      this.#wanted -= piece.length;
      if (this.#state === 'content') this.#handler.data(piece);
      else if (this.#state !== 'padding') this.#gather(piece, this.#wanted === 0);
      if (this.#wanted === 0) this.#advance();
    }
  }

  /**
   * The archive has no more bytes. @throws BerthError `invalid` when it stops inside an entry; a missing
   * end-of-archive block is allowed, as many writers leave it out.
   */
  finish(): void {
    if (this.#state === 'ended') return;
    if (this.#state !== 'header' || this.#pendingBytes > 0 || this.#longName !== undefined) {
      throw broken('the archive ends in the middle of an entry');
    }
  }

  #gather(piece: Buffer, last: boolean): void {
    // A copy only when the piece must outlive the caller's chunk.
    this.#pending.push(last && this.#pendingBytes === 0 ? piece : Buffer.from(piece));
    this.#pendingBytes += piece.length;
  }

  #take(): Buffer {
    const [first] = this.#pending;
    const whole = this.#pending.length === 1 && first !== undefined ? first : Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    return whole;
  }

  #enter(state: State, wanted: number): void {
    this.#state = state;
    this.#wanted = wanted;
    if (wanted === 0) this.#advance();
  }

  /** The present state has all its bytes. */
  #advance(): void {
    switch (this.#state) {
      case 'header':
        this.#header(this.#take());
        return;
      case 'extension':
        this.#extension(this.#take());
        this.#enterPadding();
        return;
      case 'oldSparse':
        this.#oldSparseBlock(this.#take());
        return;
      case 'sparse':
        this.#sparseBlock(this.#take());
        return;
      case 'content':
        this.#handler.end();
        this.#enterPadding();
        return;
      default:
        this.#state = 'header';
        this.#wanted = BLOCK;
    }
  }

  #enterPadding(): void {
    const padding = this.#padding;
    this.#padding = 0;
    if (padding > 0) this.#enter('padding', padding);
    else this.#enter('header', BLOCK);
  }

  #header(block: Buffer): void {
    if (block.every((byte) => byte === 0)) {
      // One zero block ends the archive for us: what follows is the second one and record padding.
      this.#state = 'ended';
      return;
    }
    checkSum(block);
    const flag = String.fromCharCode(block[156] ?? 0);
    const size = fieldNumber(block, 124, 12, 'size');
    if (flag === 'x' || flag === 'g' || flag === 'L' || flag === 'K') {
      if (size > MAX_EXTENSION)
        throw broken(`an extended header of ${size} bytes, more than ${MAX_EXTENSION}`);
      this.#extensionType = flag;
      this.#padding = paddingOf(size);
      this.#enter('extension', size);
      return;
    }
    const pax = this.#pax;
    const entry = this.#makeEntry(block, flag, size);
    this.#pax = new Map();
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#padding = paddingOf(entry.size);
    if (flag === 'S') this.#beginOldSparse(block, entry);
    else if (pax.has('GNU.sparse.major')) this.#beginSparse(pax, entry);
    else if (pax.has('GNU.sparse.map')) {
      const realSize = paxNumber(pax, 'GNU.sparse.size') ?? 0;
      this.#content(entry, { segments: paxSegments(String(pax.get('GNU.sparse.map'))), realSize });
    } else this.#content(entry);
  }

  /** Hands the entry over; its content follows. */
  #content(entry: TarEntry, sparse?: NonNullable<TarEntry['sparse']>): void {
    if (sparse !== undefined) {
      checkSegments(sparse.segments, sparse.realSize, entry.size);
      entry.sparse = sparse;
    }
    entry.offset = this.#offset;
    this.#sparse = undefined;
    this.#handler.entry(entry);
    this.#enter('content', entry.size);
  }

  #beginOldSparse(block: Buffer, entry: TarEntry): void {
    const { segments, more } = oldGnuSegments(block, true);
    const realSize = oldGnuSize(block);
    this.#sparse = { entry, segments, list: new LeadingList(), realSize };
    if (more) this.#enter('oldSparse', BLOCK);
    else this.#content(entry, { segments, realSize });
  }

  #oldSparseBlock(block: Buffer): void {
    const { entry, segments, realSize } = this.#pendingSparse();
    const next = oldGnuSegments(block, false);
    segments.push(...next.segments);
    if (segments.length > MAX_SEGMENTS) throw broken('a sparse file has too many parts');
    if (next.more) this.#enter('oldSparse', BLOCK);
    else this.#content(entry, { segments, realSize });
  }

  #beginSparse(pax: Map<string, Buffer>, entry: TarEntry): void {
    const version = `${pax.get('GNU.sparse.major')}.${pax.get('GNU.sparse.minor')}`;
    if (version !== '1.0')
      throw broken(`"${printable(entry.name)}" is sparse in the unknown format ${printable(version)}`);
    const realSize = paxNumber(pax, 'GNU.sparse.realsize') ?? 0;
    this.#sparse = { entry, segments: [], list: new LeadingList(), realSize };
    this.#nextSparseBlock();
  }

  #sparseBlock(block: Buffer): void {
    const { entry, list, realSize } = this.#pendingSparse();
    entry.size -= BLOCK;
    const segments = list.push(block);
    if (segments === undefined) this.#nextSparseBlock();
    else this.#content(entry, { segments, realSize });
  }

  #nextSparseBlock(): void {
    if (this.#pendingSparse().entry.size < BLOCK)
      throw broken('the list of parts of a sparse file has no end');
    this.#enter('sparse', BLOCK);
  }

  #pendingSparse() {
    if (this.#sparse === undefined) throw broken('a list of parts belongs to no file');
    return this.#sparse;
  }

  #extension(content: Buffer): void {
    const text = (): string => fieldText(content, 0, content.length);
    if (this.#extensionType === 'x') this.#pax = parsePax(content);
    else if (this.#extensionType === 'L') this.#longName = text();
    else if (this.#extensionType === 'K') this.#longLink = text();
    // Global headers ("g") carry an archive's comment, such as git's; Docker and containerd ignore them too.
  }

  #makeEntry(block: Buffer, flag: string, headerSize: number): TarEntry {
    const pax = this.#pax;
    const name =
      pax.get('GNU.sparse.name')?.toString('latin1') ??
      pax.get('path')?.toString('latin1') ??
      this.#longName ??
      shortName(block);
    const type = TYPES[flag];
    if (type === undefined)
      throw broken(`"${printable(name)}" has the unknown entry type "${printable(flag)}"`);
    const linkname = pax.get('linkpath')?.toString('latin1') ?? this.#longLink ?? fieldText(block, 157, 100);
    for (const text of [name, linkname]) {
      if (text.length > MAX_NAME) throw broken(`a name of ${text.length} bytes, more than ${MAX_NAME}`);
      if (text.includes('\0')) throw broken('a name contains a NUL byte');
    }
    const size = paxNumber(pax, 'size') ?? headerSize;
    const isFile = type === 'file';
    // Before POSIX 1988, a directory was a file whose name ends in a slash.
    const isOldDirectory = isFile && name.endsWith('/');
    return {
      name,
      type: isOldDirectory ? 'directory' : type,
      linkname: type === 'hardlink' || type === 'symlink' ? linkname : '',
      mode: fieldNumber(block, 100, 8, 'mode') & 0o7777,
      uid: paxNumber(pax, 'uid') ?? fieldNumber(block, 108, 8, 'uid'),
      gid: paxNumber(pax, 'gid') ?? fieldNumber(block, 116, 8, 'gid'),
      // Writers disagree on the size of a hardlink: POSIX lets content follow, none that make layers do.
      size: isFile && !isOldDirectory ? size : 0,
      mtime: paxTime(pax, 'mtime') ?? BigInt(fieldNumber(block, 136, 12, 'mtime')) * 1_000_000_000n,
      devMajor: fieldNumber(block, 329, 8, 'devmajor'),
      devMinor: fieldNumber(block, 337, 8, 'devminor'),
      xattrs: xattrsOf(pax),
      offset: this.#offset,
    };
  }
}

function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

function shortName(block: Buffer): string {
  const name = fieldText(block, 0, 100);
  // Only POSIX's magic ("ustar\0") has a prefix field; GNU's ("ustar ") keeps times there.
  const isPosix = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? fieldText(block, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function checkSum(block: Buffer): void {
  let sum = 8 * 32;
  for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += block[i] ?? 0;
  if (sum !== fieldNumber(block, 148, 8, 'checksum')) {
    throw broken('a header has a wrong checksum: this is no tar archive, or it is damaged');
  }
}

function paxNumber(pax: Map<string, Buffer>, key: string): number | undefined {
  const text = pax.get(key)?.toString('latin1');
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw broken(`PAX record "${key}" is not a number`);
  return value;
}

/** Seconds with an optional fraction (pax(1)) as nanoseconds. */
function paxTime(pax: Map<string, Buffer>, key: string): bigint | undefined {
  const text = pax.get(key)?.toString('latin1');
  if (text === undefined) return undefined;
  const match = /^(-?)(\d{1,12})(?:\.(\d*))?$/.exec(text);
  if (match === null) throw broken(`PAX record "${key}" is not a time`);
  const [, sign, seconds = '0', fraction = ''] = match;
  const value = BigInt(seconds) * 1_000_000_000n + BigInt(fraction.slice(0, 9).padEnd(9, '0'));
  return sign === '-' ? -value : value;
}

const XATTR_PREFIX = 'SCHILY.xattr.';

function xattrsOf(pax: Map<string, Buffer>): Map<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of pax) {
    if (key.startsWith(XATTR_PREFIX)) xattrs.set(key.slice(XATTR_PREFIX.length), value);
  }
  return xattrs;
}

/** An archive's text as it may stand in an error: short, without control characters. */
export function printable(latin1: string): string {
  const text = Buffer.from(latin1.slice(0, 256), 'latin1').toString('utf8');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not reach a terminal
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?') + (latin1.length > 256 ? '…' : '');
}

function broken(problem: string): BerthError {
  return new BerthError('invalid', `tar: ${problem}`);
}
