import { Readable } from 'node:stream';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { describe, expect, it } from 'vitest';
import { type TarEntry, TarReader } from '../../../src/image/tar/reader.ts';
import { type NewEntry, tarHeader } from '../../../src/image/tar/writer.ts';
import { decompress, detectCompression } from '../../../src/image/unpack/decompress.ts';
import { checkSymlink, layerPath } from '../../../src/image/unpack/names.ts';
import { parseWhiteout } from '../../../src/image/unpack/whiteout.ts';

describe('parseWhiteout', () => {
  it.each([
    ['file', undefined],
    ['.wh', undefined],
    ['x.wh.y', undefined],
    ['.wh.file', { kind: 'whiteout', name: 'file' }],
    ['.wh..hidden', { kind: 'whiteout', name: '.hidden' }],
    ['.wh....', { kind: 'whiteout', name: '...' }],
    ['.wh..wh..opq', { kind: 'opaque' }],
    ['.wh..wh.plnk', { kind: 'ignored' }],
    ['.wh..wh.aufs', { kind: 'ignored' }],
  ])('%s', (name, expected) => {
    expect(parseWhiteout(name)).toEqual(expected);
  });

  it.each(['.wh.', '.wh..', '.wh...'])('refuses %s', (name) => {
    expect(() => parseWhiteout(name)).toThrow(/without a file name/);
  });
});

it('keeps names and symlinks inside of the layer', () => {
  expect(layerPath('./a//b/../c/', 'path')).toEqual(['a', 'c']);
  expect(layerPath('/', 'path')).toEqual([]);
  expect(() => layerPath('a/../..', 'path')).toThrow(/climbs out/);
  expect(() => checkSymlink(2, '../../x', 'l')).not.toThrow();
  expect(() => checkSymlink(2, '../../../x', 'l')).toThrow(/points outside/);
  expect(() => checkSymlink(0, '/../x', 'l')).not.toThrow();
  expect(() => checkSymlink(1, 'a/../../../x', 'l')).toThrow(/points outside/);
});

describe('decompress', () => {
  const text = Buffer.from('some text that is long enough to be in several pieces '.repeat(50));
  const skippable = Buffer.from('5a2a4d1804000000aabbccdd', 'hex');
  const frames = Buffer.concat([
    skippable,
    zstdCompressSync(text.subarray(0, 100)),
    zstdCompressSync(Buffer.alloc(0)),
    skippable,
    zstdCompressSync(text.subarray(100)),
    skippable,
  ]);

  async function run(bytes: Buffer, size: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
    return Buffer.concat(await Readable.from(decompress(Readable.from(pieces))).toArray());
  }

  it.each([1, 7, 100_000])(
    'tells gzip, zstd of several frames and plain bytes, in pieces of %d',
    async (size) => {
      expect(await run(gzipSync(text), size)).toEqual(text);
      expect(await run(Buffer.concat([gzipSync(text), gzipSync(text)]), size)).toEqual(
        Buffer.concat([text, text]),
      );
      expect(await run(frames, size)).toEqual(text);
      expect(await run(text, size)).toEqual(text);
      expect(await run(Buffer.alloc(0), size)).toEqual(Buffer.alloc(0));
    },
  );

  it.each([1, 100_000])('reads eStargz and zstd:chunked as what they are, in pieces of %d', async (size) => {
    // A gzip member without content, whose extra field says where the table of contents is
    // (stargz-snapshotter, docs/estargz.md, "eStargz footer").
    const extra = Buffer.from(`SG\x16\0${'0'.repeat(15)}1STARGZ`, 'latin1');
    const header = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, extra.length, 0]);
    const footer = Buffer.concat([header, extra, Buffer.from([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0])]);
    const members = [text.subarray(0, 300), text.subarray(300)].map((part) => gzipSync(part));
    expect(await run(Buffer.concat([...members, footer]), size)).toEqual(text);
    // Each file a frame, the table of contents in skippable ones (containers/storage, pkg/chunked).
    const table = Buffer.concat([
      Buffer.from('502a4d18', 'hex'),
      Buffer.from([4, 0, 0, 0]),
      Buffer.from('toc!'),
    ]);
    const parts = [text.subarray(0, 300), text.subarray(300)].map((part) => zstdCompressSync(part));
    expect(await run(Buffer.concat([...parts, table, table]), size)).toEqual(text);
  });

  it.each([1, 100_000])('refuses what is damaged or cut short, in pieces of %d', async (size) => {
    const garbage = Buffer.from('garbage');
    for (const whole of [gzipSync(text), zstdCompressSync(text)]) {
      await expect(run(whole.subarray(0, -3), size)).rejects.toMatchObject({ kind: 'invalid' });
      await expect(run(Buffer.concat([whole, garbage]), size)).rejects.toMatchObject({ kind: 'invalid' });
    }
  });

  it.each([gzipSync, zstdCompressSync])(
    'gives pieces that take but a moment each, by %o',
    async (compress) => {
      const bomb = compress(Buffer.alloc(20_000_000));
      let total = 0;
      for await (const piece of decompress(Readable.from([bomb]))) {
        expect(piece.length).toBeLessThanOrEqual(128 * 1024);
        total += piece.length;
      }
      expect(total).toBe(20_000_000);
    },
  );

  it('knows magic numbers', () => {
    expect(detectCompression(gzipSync(''))).toBe('gzip');
    expect(detectCompression(zstdCompressSync(''))).toBe('zstd');
    expect(detectCompression(skippable)).toBe('zstd');
    expect(detectCompression(Buffer.from([0x1f]))).toBe('none');
  });
});

describe('TarReader', () => {
  async function written(...headers: { name: string; [key: string]: unknown }[]): Promise<Buffer> {
    const archive = pack();
    for (const header of headers) archive.entry(header, 'content');
    archive.finalize();
    const chunks: Buffer[] = [];
    for await (const chunk of archive) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }

  function read(bytes: Buffer, size = bytes.length): (TarEntry & { content: string })[] {
    const entries: (TarEntry & { content: string })[] = [];
    let content = '';
    const reader = new TarReader({
      entry: (entry) => {
        content = '';
        entries.push({ ...entry, content });
      },
      data: (chunk) => {
        content += chunk.toString();
      },
      end: () => {
        const last = entries.at(-1);
        if (last !== undefined) last.content = content;
      },
    });
    for (let at = 0; at < bytes.length; at += size) reader.push(bytes.subarray(at, at + size));
    reader.finish();
    return entries;
  }

  it.each([1, 511, 512, 513, 100_000])('reads in pieces of %d bytes', async (size) => {
    const long = `${'d'.repeat(90)}/${'e'.repeat(90)}/${'f'.repeat(90)}/ünï`;
    const bytes = await written({ name: 'a', mode: 0o4755, uid: 1, gid: 2 }, { name: long }, { name: 'c' });
    const entries = read(bytes, size);
    expect(entries.map((e) => Buffer.from(e.name, 'latin1').toString())).toEqual(['a', long, 'c']);
    expect(entries[0]).toMatchObject({ type: 'file', mode: 0o4755, uid: 1, gid: 2, size: 7 });
    for (const entry of entries) {
      expect(entry.content).toBe('content');
      expect(bytes.toString('utf8', entry.offset, entry.offset + entry.size)).toBe('content');
    }
  });

  it('does not need the blocks at the end, but the content of each entry', async () => {
    const bytes = await written({ name: 'a' });
    expect(read(bytes.subarray(0, 1024))).toHaveLength(1);
    expect(() => read(bytes.subarray(0, 1000))).toThrow(/in the middle/);
    expect(() => read(bytes.subarray(0, 515))).toThrow(/in the middle/);
    expect(() => read(bytes.subarray(0, 100))).toThrow(/in the middle/);
    expect(read(Buffer.alloc(0))).toEqual([]);
  });

  it('refuses damaged headers', async () => {
    const bytes = await written({ name: 'a' });
    expect(() => read(Buffer.from(bytes).fill(1, 0, 5))).toThrow(/checksum/);
    expect(() => read(Buffer.alloc(512, 'x'))).toThrow(/tar: /);
  });

  it.each(['-5 a=b\n', '9 a=b\n', '0 a=b\n', '6 a=bc', '5 ab\n', '99999999999 a=b\n', ' a=b\n'])(
    'refuses the PAX record %j, whatever its length says',
    async (record) => {
      const bytes = await written({ name: 'x', pax: { key: 'v'.repeat(20) } });
      bytes.fill(0, 512, 1024).write(record, 512);
      expect(() => read(bytes)).toThrow(/PAX header/);
    },
  );
});

describe('tarHeader', () => {
  const xattrs = new Map([['user.\xe9', Buffer.from([0, 0xff, 0x0a])]]);
  it.each<NewEntry>([
    {
      name: 'short',
      type: 'file',
      size: 8 ** 11 - 1,
      mode: 0o7755,
      uid: 8 ** 7 - 1,
      gid: 3,
      mtime: 8 ** 11 - 1,
    },
    { name: `${'n'.repeat(99)}\xff`, type: 'symlink', linkname: 't'.repeat(100) },
    { name: `${'n'.repeat(100)}\xff`, type: 'hardlink', linkname: '\xe9'.repeat(101), mtime: -5 },
    { name: 'large', type: 'file', size: 8 ** 11, uid: 0xfffffffe, gid: 8 ** 7, mtime: 8 ** 11, xattrs },
    { name: 'd/', type: 'directory', mtime: 1.9 },
    { name: 'tty', type: 'character-device', devMajor: 5, devMinor: 8 ** 7 - 1 },
  ])('of $name, $type is read as it was written', (entry) => {
    const found: TarEntry[] = [];
    const handler = { entry: (e: TarEntry) => found.push(e), data: () => {}, end: () => {} };
    new TarReader(handler).push(tarHeader(entry));
    const defaults = { linkname: '', mode: 0o644, uid: 0, gid: 0, size: 0, devMajor: 0, devMinor: 0 };
    const mtime = BigInt(Math.floor(entry.mtime ?? 0)) * 1_000_000_000n;
    expect(found).toMatchObject([{ ...defaults, xattrs: new Map(), ...entry, mtime }]);
  });

  it('refuses what does not fit', () => {
    expect(() => tarHeader({ name: 'x', type: 'block-device', devMajor: 8 ** 7 })).toThrow(/does not fit/);
  });
});
