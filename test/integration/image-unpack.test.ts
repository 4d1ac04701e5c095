import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Growth } from '../../src/image/growth.ts';
import { tarHeader } from '../../src/image/tar/writer.ts';
import type { Image } from '../../src/image/types.ts';
import { unpackLayer } from '../../src/image/unpack/run.ts';
import { mountOverlay, unmount } from '../../src/sys/mount.ts';
import { lgetxattr } from '../../src/sys/xattr.ts';
import {
  buildImage,
  type Entry,
  type ImageFixture,
  imageFixture,
  importLayers,
  LAYER_TYPE,
  layer,
  NAME,
  ociArchive,
  sha256,
  streamOf,
  tar,
} from '../support/images.ts';

let fixture: ImageFixture;

beforeEach(() => {
  fixture = imageFixture();
});

afterEach(() => fixture.close());

/** The only layer's directory. */
async function unpack(...entries: Entry[]): Promise<string> {
  const [dir = ''] = fixture.images.lowerdirs(await importLayers(fixture, entries));
  return dir;
}

/** Runs `look` on a read-only overlay of the image. */
function withOverlay(image: Image, look: (dir: string) => void): void {
  const target = mkdtempSync(join(tmpdir(), 'berth-overlay-'));
  for (const dir of ['up', 'work', 'merged']) mkdirSync(join(target, dir));
  const merged = join(target, 'merged');
  mountOverlay({
    lowerdirs: fixture.images.lowerdirs(image),
    upperdir: join(target, 'up'),
    workdir: join(target, 'work'),
    target: merged,
  });
  try {
    look(merged);
  } finally {
    unmount(merged);
    rmSync(target, { recursive: true });
  }
}

describe('a layer', () => {
  it('keeps owners, modes, times and extended attributes', async () => {
    // Capabilities with bytes that are not UTF-8, as file capabilities are.
    const capability = Buffer.from('0100000280ff0000000000000000000000000000', 'hex');
    const bytes = Buffer.concat([
      tarHeader({ name: 'cap', type: 'file', xattrs: new Map([['security.capability', capability]]) }),
      await tar([
        { name: 'd/', type: 'directory', mode: 0o1777, uid: 5, gid: 6, mtime: new Date(1_500_000_000_000) },
        { name: 'd/suid', content: 'x', mode: 0o6755, uid: 7, gid: 8 },
        { name: 'd/fifo', type: 'fifo', mode: 0o600 },
        { name: 'd/null', type: 'character-device', devmajor: 1, devminor: 3, mode: 0o666 },
        { name: 'd/link', type: 'symlink', linkname: '/absolute/is/fine' },
        { name: 'd/hard', type: 'link', linkname: 'd/suid' },
        { name: 'exact', pax: { mtime: '1600000000.123456789' } },
      ]),
    ]);
    const built = buildImage([{ tar: bytes, blob: bytes, mediaType: LAYER_TYPE }]);
    const [image] = await fixture.images.importArchive(streamOf(await ociArchive(built, NAME)));
    const [dir = ''] = fixture.images.lowerdirs(image as Image);
    const at = (name: string) => lstatSync(join(dir, name), { bigint: true });
    expect(at('d')).toMatchObject({ mode: 0o41777n, uid: 5n, gid: 6n, mtimeNs: 1_500_000_000_000_000_000n });
    expect(at('d/suid')).toMatchObject({ mode: 0o106755n, uid: 7n, gid: 8n, nlink: 2n });
    expect(at('d/fifo').isFIFO()).toBe(true);
    expect(at('d/null')).toMatchObject({ mode: 0o20666n, rdev: 0x103n });
    expect(readlinkSync(join(dir, 'd/link'))).toBe('/absolute/is/fine');
    expect(at('d/hard').ino).toBe(at('d/suid').ino);
    expect(at('exact').mtimeNs).toBe(1_600_000_000_123_456_789n);
    expect(lgetxattr(join(dir, 'cap'), 'security.capability')).toEqual(capability);
  });

  it.each([
    ['gnu', []],
    ['posix', ['--sparse-version=0.0']],
    ['posix', ['--sparse-version=0.1']],
    ['posix', ['--sparse-version=1.0']],
  ])('may have sparse files and long names, as tar --format=%s %j writes them', async (format, options) => {
    const dir = mkdtempSync(join(tmpdir(), 'berth-sparse-'));
    try {
      const long = `${'d'.repeat(120)}/${'é'.repeat(100)}`;
      mkdirSync(join(dir, 'd'.repeat(120)));
      for (const [name, parts] of [
        ['many', 60],
        ['one', 1],
        ['none', 0],
        [long, 3],
      ] as const) {
        const fd = openSync(join(dir, name), 'w');
        for (let i = 0; i < parts; i++) writeSync(fd, `part ${i}`.repeat(100), (2 * i + 1) * 100_000);
        ftruncateSync(fd, 20_000_000);
        closeSync(fd);
      }
      symlinkSync(`/${'t'.repeat(200)}`, join(dir, 'link'));
      const made = spawnSync('tar', ['-cS', `--format=${format}`, ...options, '-C', dir, '.'], {
        maxBuffer: 50_000_000,
      });
      expect(made.stderr.toString()).toBe('');
      expect(made.stdout.length).toBeLessThan(5_000_000);
      const built = buildImage([
        { tar: made.stdout, blob: gzipSync(made.stdout), mediaType: 'application/x' },
      ]);
      const [image] = await fixture.images.importArchive(streamOf(await ociArchive(built, NAME)));
      const [unpacked = ''] = fixture.images.lowerdirs(image as Image);
      expect(spawnSync('diff', ['-r', '--no-dereference', dir, unpacked]).stdout.toString()).toBe('');
      expect(statSync(join(unpacked, 'many'))).toMatchObject({ size: 20_000_000 });
      expect(statSync(join(unpacked, 'many')).blocks * 512).toBeLessThan(2_000_000);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('replaces earlier entries of another kind', async () => {
    const dir = await unpack(
      { name: 'a/', type: 'directory' },
      { name: 'a/b/c', content: 'deep' },
      { name: 'a', content: 'now a file' },
      { name: 's', type: 'symlink', linkname: 'a' },
      { name: 's/', type: 'directory' },
      { name: 's/in', content: 'x' },
    );
    expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('now a file');
    expect(statSync(join(dir, 's')).isDirectory()).toBe(true);
  });

  it('is written through symlinked parents inside of itself only', async () => {
    const outside = `/tmp/berth-escape-${process.pid}`;
    const dir = await unpack(
      { name: 'evil', type: 'symlink', linkname: outside },
      { name: 'evil/file', content: 'x' },
      { name: 'usr/lib/', type: 'directory' },
      { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
      { name: 'lib/x.so', content: 'so' },
    );
    expect(existsSync(outside)).toBe(false);
    expect(readFileSync(join(dir, outside, 'file'), 'utf8')).toBe('x');
    expect(readFileSync(join(dir, 'usr/lib/x.so'), 'utf8')).toBe('so');
  });

  it('takes absolute names as relative to its root', async () => {
    const dir = await unpack({ name: '/etc/abs', content: 'x' }, { name: 'a/../b', content: 'y' });
    expect(readdirSync(dir).sort()).toEqual(['b', 'etc']);
  });

  it('hides what lower layers have, as seen through overlayfs', async () => {
    const image = await importLayers(
      fixture,
      [
        { name: 'gone', content: 'x' },
        { name: 'opaque/old', content: 'x' },
        { name: 'again/old', content: 'x' },
        { name: 'kept/old', content: 'x' },
        { name: 'tmp/', type: 'directory', mode: 0o1777, uid: 3 },
      ],
      [
        { name: '.wh.gone', content: '' },
        { name: 'opaque/new', content: 'x' },
        { name: 'opaque/.wh..wh..opq', content: '' },
        { name: '.wh.again', content: '' },
        { name: 'again/', type: 'directory' },
        { name: 'again/new', content: 'x' },
        { name: 'kept/new', content: 'x' },
        { name: 'tmp/only-implies-tmp', content: 'x' },
        { name: '.wh..wh.plnk/1.2', content: 'x' },
      ],
    );
    withOverlay(image, (dir) => {
      expect(readdirSync(dir).sort()).toEqual(['again', 'kept', 'opaque', 'tmp']);
      expect(readdirSync(join(dir, 'opaque'))).toEqual(['new']);
      expect(readdirSync(join(dir, 'again'))).toEqual(['new']);
      expect(readdirSync(join(dir, 'kept')).sort()).toEqual(['new', 'old']);
      expect(statSync(join(dir, 'tmp'))).toMatchObject({ mode: 0o41777, uid: 3 });
    });
  });

  it('whose root is opaque hides all layers below', async () => {
    const image = await importLayers(
      fixture,
      [{ name: 'old', content: 'x' }],
      [
        { name: '.wh..wh..opq', content: '' },
        { name: 'new', content: 'x' },
      ],
    );
    expect(fixture.images.lowerdirs(image)).toHaveLength(1);
  });

  it('is stored once for all images that share it', async () => {
    const base = await layer([{ name: 'base', content: 'x' }]);
    for (const [n, name] of ['one', 'two'].entries()) {
      const built = buildImage([base, await layer([{ name, content: 'y' }])]);
      await fixture.images.importArchive(streamOf(await ociArchive(built, {})), { name: `app:${n}` });
    }
    expect(fixture.images.list()).toHaveLength(2);
    expect(readdirSync(join(fixture.root, 'layers'))).toHaveLength(3);
    await fixture.images.remove('app:0');
    expect(readdirSync(join(fixture.root, 'layers'))).toHaveLength(2);
    expect(fixture.images.get('app:0')).toBeUndefined();
    expect(fixture.images.get('app:1')).toBeDefined();
  });
});

describe('the bounds of a layer', () => {
  it.each([
    ['bytes', { bytes: 100_000 }, /more than 100000 bytes/],
    ['files and directories', { inodes: 3 }, /more than 3 files/],
  ])('of %s end the unpacking', async (_, limits, message) => {
    const target = mkdtempSync(join(tmpdir(), 'berth-bounds-'));
    try {
      const bomb = await tar([{ name: 'a/b/c/zeros', content: Buffer.alloc(1_000_000) }]);
      const blob = join(target, 'blob');
      writeFileSync(blob, gzipSync(bomb));
      mkdirSync(join(target, 'fs'));
      const { signal } = new AbortController();
      const unpacking = unpackLayer({
        blob: Growth.stored(blob, statSync(blob).size),
        blobBytes: statSync(blob).size,
        target: join(target, 'fs'),
        diffId: sha256(bomb),
        limits,
        signal,
      });
      await expect(unpacking).rejects.toMatchObject({
        kind: 'exhausted',
        message: expect.stringMatching(message),
      });
    } finally {
      rmSync(target, { recursive: true });
    }
  });
});
