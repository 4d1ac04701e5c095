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
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BerthError } from '../../src/errors.ts';
import { Growth } from '../../src/image/growth.ts';
import type { Image } from '../../src/image/types.ts';
import { unpackLayer } from '../../src/image/unpack/run.ts';
import { mountOverlay, unmount } from '../../src/sys/mount.ts';
import { lgetxattr } from '../../src/sys/xattr.ts';
import {
  buildImage,
  type Entry,
  type ImageFixture,
  imageFixture,
  layer,
  ociArchive,
  sha256,
  streamOf,
  tar,
} from '../support/images.ts';

const NAME = { 'io.containerd.image.name': 'example.com/team/app:1' };

let fixture: ImageFixture;

beforeEach(() => {
  fixture = imageFixture();
});

afterEach(() => fixture.close());

async function importLayers(...layers: Entry[][]): Promise<Image> {
  const built = buildImage(await Promise.all(layers.map((entries) => layer(entries))));
  const [image] = await fixture.images.importArchive(streamOf(await ociArchive(built, NAME)));
  if (image === undefined) throw new Error('no image');
  return image;
}

/** The only layer's directory. */
async function unpack(...entries: Entry[]): Promise<string> {
  const [dir = ''] = fixture.images.lowerdirs(await importLayers(entries));
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

describe('an OCI archive', () => {
  it('becomes an image with names, config, size and layers', async () => {
    const built = buildImage([await layer([{ name: 'hello', content: 'hi', mode: 0o755 }])], {
      config: {
        Entrypoint: ['/hello'],
        Env: ['A=b'],
        User: '1000',
        Labels: { k: 'v' },
        Volumes: { '/v': {} },
      },
    });
    const [image] = await fixture.images.importArchive(streamOf(await ociArchive(built, NAME)));
    expect(image).toMatchObject({
      id: built.id,
      repoTags: ['example.com/team/app:1'],
      repoDigests: [`example.com/team/app@${built.manifest.digest}`],
      config: {
        entrypoint: ['/hello'],
        env: ['A=b'],
        user: '1000',
        labels: { k: 'v' },
        volumes: ['/v'],
        cmd: [],
      },
      pinned: false,
    });
    expect(image?.size).toBe(BigInt([...built.blobs.values()].reduce((sum, b) => sum + b.length, 0)));
    for (const ref of [
      built.id,
      built.id.slice(7),
      'example.com/team/app:1',
      ...(image?.repoDigests ?? []),
    ]) {
      expect(fixture.images.get(ref)?.id).toBe(built.id);
    }
    const [dir = ''] = fixture.images.lowerdirs(image as Image);
    expect(readFileSync(join(dir, 'hello'), 'utf8')).toBe('hi');
    expect(JSON.parse(await fixture.images.rawConfig(image as Image))).toHaveProperty(
      'rootfs.type',
      'layers',
    );
  });

  it('may be compressed, and so may its layers, also in several zstd frames', async () => {
    const zstd = (bytes: Buffer): Buffer =>
      Buffer.concat([
        zstdCompressSync(bytes.subarray(0, 700)),
        Buffer.from('502a4d1804000000aabbccdd', 'hex'),
        zstdCompressSync(bytes.subarray(700)),
      ]);
    const gzip = (bytes: Buffer): Buffer =>
      Buffer.concat([gzipSync(bytes.subarray(0, 600)), gzipSync(bytes.subarray(600))]);
    const built = buildImage([
      await layer([{ name: 'a', content: 'from zstd' }], { with: zstd, suffix: 'zstd' }),
      await layer([{ name: 'b', content: 'from gzip' }], { with: gzip, suffix: 'gzip' }),
    ]);
    const archive = gzipSync(await ociArchive(built, NAME));
    const [image] = await fixture.images.importArchive(streamOf(archive));
    const [top = '', base = ''] = fixture.images.lowerdirs(image as Image);
    expect(readFileSync(join(base, 'a'), 'utf8')).toBe('from zstd');
    expect(readFileSync(join(top, 'b'), 'utf8')).toBe('from gzip');
  });

  it('takes the name of the caller, normalised', async () => {
    const built = buildImage([await layer([{ name: 'a', content: 'x' }])]);
    const archive = await ociArchive(built, { 'org.opencontainers.image.ref.name': 'latest' });
    const [image] = await fixture.images.importArchive(streamOf(archive), { name: 'app' });
    expect(image?.repoTags).toEqual(['docker.io/library/app:latest']);
  });

  it('for another platform is refused', async () => {
    const built = buildImage([await layer([{ name: 'a', content: 'x' }])], { architecture: 's390x' });
    await expect(fixture.images.importArchive(streamOf(await ociArchive(built, NAME)))).rejects.toThrow(
      /linux\/s390x, not for linux/,
    );
    await expectNothingLeft();
  });
});

describe('an archive of docker save', () => {
  it('becomes an image, with repeated layers as symlinks', async () => {
    const one = await tar([{ name: 'one', content: '1' }]);
    const config = Buffer.from(
      JSON.stringify({
        os: 'linux',
        architecture: process.arch === 'x64' ? 'amd64' : process.arch,
        rootfs: { type: 'layers', diff_ids: [sha256(one), sha256(one)] },
      }),
    );
    const archive = await tar([
      { name: 'aaa/layer.tar', content: one },
      { name: 'bbb/layer.tar', type: 'symlink', linkname: '../aaa/layer.tar' },
      { name: 'config.json', content: config },
      {
        name: 'manifest.json',
        content: JSON.stringify([
          { Config: 'config.json', RepoTags: ['app:2'], Layers: ['aaa/layer.tar', 'bbb/layer.tar'] },
        ]),
      },
    ]);
    const [image] = await fixture.images.importArchive(streamOf(archive));
    expect(image).toMatchObject({
      id: sha256(config),
      repoTags: ['docker.io/library/app:2'],
      repoDigests: [],
    });
    expect(fixture.images.lowerdirs(image as Image)).toHaveLength(2);
  });
});

describe('a layer', () => {
  it('keeps owners, modes, times and extended attributes', async () => {
    // Capabilities with bytes that are not UTF-8, as file capabilities are.
    const capability = Buffer.from('0100000280ff0000000000000000000000000000', 'hex');
    const [file] = [
      await tar([
        { name: 'd/', type: 'directory', mode: 0o1777, uid: 5, gid: 6, mtime: new Date(1_500_000_000_000) },
        { name: 'd/suid', content: 'x', mode: 0o6755, uid: 7, gid: 8 },
        { name: 'd/fifo', type: 'fifo', mode: 0o600 },
        { name: 'd/null', type: 'character-device', devmajor: 1, devminor: 3, mode: 0o666 },
        { name: 'd/link', type: 'symlink', linkname: '/absolute/is/fine' },
        { name: 'd/hard', type: 'link', linkname: 'd/suid' },
      ]),
    ];
    const built = buildImage(
      [
        {
          tar: Buffer.concat([paxFile('cap', capability), file ?? Buffer.alloc(0)]),
          blob: Buffer.alloc(0),
          mediaType: '',
        },
      ].map((l) => ({ ...l, blob: l.tar })),
    );
    const [image] = await fixture.images.importArchive(streamOf(await ociArchive(built, NAME)));
    const [dir = ''] = fixture.images.lowerdirs(image as Image);
    const at = (name: string) => lstatSync(join(dir, name), { bigint: true });
    expect(at('d')).toMatchObject({ mode: 0o41777n, uid: 5n, gid: 6n, mtimeNs: 1_500_000_000_000_000_000n });
    expect(at('d/suid')).toMatchObject({ mode: 0o106755n, uid: 7n, gid: 8n, nlink: 2n });
    expect(at('d/fifo').isFIFO()).toBe(true);
    expect(at('d/null')).toMatchObject({ mode: 0o20666n, rdev: 0x103n });
    expect(readlinkSync(join(dir, 'd/link'))).toBe('/absolute/is/fine');
    expect(at('d/hard').ino).toBe(at('d/suid').ino);
    expect(at('cap').mtimeNs).toBe(1_600_000_000_123_456_789n);
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

async function expectNothingLeft(): Promise<void> {
  await expect.poll(() => fixture.leftovers()).toEqual([]);
  expect(fixture.images.list()).toEqual([]);
  for (const table of ['images', 'image_names', 'blobs', 'layers']) {
    expect(fixture.db.all(`SELECT * FROM ${table}`)).toEqual([]);
  }
  expect(spawnSync('pgrep', ['-f', fixture.root]).stdout.toString()).toBe('');
}

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

describe('a hostile layer leaves nothing:', () => {
  const file = { content: 'x' };
  const cases: [string, Entry[], RegExp][] = [
    ['a name that climbs out', [{ name: '../../etc/passwd', ...file }], /"..\/..\/etc\/passwd" climbs out/],
    ['a name that climbs out later', [{ name: 'a/../../x', ...file }], /climbs out/],
    [
      'a symlink that points outside',
      [{ name: 'a/l', type: 'symlink', linkname: '../../etc' }],
      /points outside/,
    ],
    ['a hardlink that climbs out', [{ name: 'l', type: 'link', linkname: '../etc/passwd' }], /climbs out/],
    [
      'a hardlink to what is not in the layer',
      [{ name: 'l', type: 'link', linkname: '/etc/passwd' }],
      /no file of the same/,
    ],
    [
      'a hardlink through a symlink',
      [
        { name: 's', type: 'symlink', linkname: '/etc' },
        { name: 'l', type: 'link', linkname: 's/passwd' },
      ],
      /no file of the same layer/,
    ],
    ['a huge name', [{ name: 'n'.repeat(5000), ...file }], /5000 bytes/],
    ['a name with a long part', [{ name: 'n'.repeat(256), ...file }], /255 bytes/],
    ['a path that is too long for the host', [{ name: 'a/'.repeat(1800), type: 'directory' }], /longer than/],
    [
      'a file as a parent',
      [
        { name: 'f', ...file },
        { name: 'f/g', ...file },
      ],
      /no directory/,
    ],
    [
      'symlinks in circles',
      [
        { name: 'a', type: 'symlink', linkname: 'b' },
        { name: 'b', type: 'symlink', linkname: 'a' },
        { name: 'a/x', ...file },
      ],
      /too many symlinks/,
    ],
    ['a whiteout of nothing', [{ name: '.wh.', ...file }], /without a file name/],
    ['a whiteout that climbs', [{ name: 'a/.wh...', ...file }], /without a file name/],
  ];
  it.each(cases)('%s', async (_, entries, message) => {
    const failure = await importLayers([{ name: 'fine', content: 'x' }], entries).catch((e: unknown) => e);
    expect(failure).toBeInstanceOf(BerthError);
    expect(failure).toMatchObject({ kind: 'invalid', message: expect.stringMatching(message) });
    await expectNothingLeft();
  });

  it('another layer digest than the manifest says', async () => {
    const built = buildImage([await layer([{ name: 'a', content: 'x' }])]);
    const [digest = ''] = [...built.blobs.keys()].slice(1, 2);
    built.blobs.set(digest, Buffer.from(built.blobs.get(digest) ?? '').fill(1, 0, 1));
    const archive = await ociArchive(built, NAME);
    await expect(fixture.images.importArchive(streamOf(archive))).rejects.toThrow(/arrived with the digest/);
    await expectNothingLeft();
  });

  it('another diff ID than the config says', async () => {
    const built = buildImage([await layer([{ name: 'a', content: 'x' }])], {
      diffIds: [sha256(Buffer.from('other'))],
    });
    await expect(fixture.images.importArchive(streamOf(await ociArchive(built, NAME)))).rejects.toThrow(
      /its diff ID is/,
    );
    await expectNothingLeft();
  });

  it('a layer that is cut short, or no tar, or damaged gzip', async () => {
    const whole = await tar([{ name: 'a', content: Buffer.alloc(5000) }]);
    const damaged = gzipSync(whole);
    damaged.fill(0, 20, 24);
    for (const bytes of [whole.subarray(0, 2000), Buffer.alloc(1024, 'x'), damaged]) {
      const built = buildImage([{ tar: bytes, blob: bytes, mediaType: 'application/x' }]);
      await expect(
        fixture.images.importArchive(streamOf(await ociArchive(built, NAME))),
      ).rejects.toMatchObject({ kind: 'invalid' });
    }
    await expectNothingLeft();
  });

  it('an import that is cancelled', async () => {
    const built = buildImage([await layer([{ name: 'a', content: Buffer.alloc(3_000_000) }])]);
    const abort = new AbortController();
    const importing = fixture.images.importArchive(streamOf(await ociArchive(built, NAME)), {
      signal: abort.signal,
      onProgress: ({ phase }) => phase === 'unpack' && abort.abort(),
    });
    await expect(importing).rejects.toThrow();
    await expectNothingLeft();
  });
});

/** A file with an xattr of raw bytes and a time in nanoseconds, which tar-stream cannot write. */
function paxFile(name: string, capability: Buffer): Buffer {
  const record = (key: string, value: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
    let length = body.length + 1;
    while (String(length).length + body.length !== length) length = String(length).length + body.length;
    return Buffer.concat([Buffer.from(String(length)), body]);
  };
  const pax = Buffer.concat([
    record('SCHILY.xattr.security.capability', capability),
    record('mtime', Buffer.from('1600000000.123456789')),
  ]);
  const header = (type: string, entryName: string, size: number): Buffer => {
    const block = Buffer.alloc(512);
    block.write(entryName, 0);
    block.write('0000755\0', 100);
    block.write('0000000\0', 108);
    block.write('0000000\0', 116);
    block.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
    block.write('00000000000\0', 136);
    block.write('        ', 148);
    block.write(type, 156);
    block.write('ustar\0', 257);
    block.write('00', 263);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return block;
  };
  const padding = Buffer.alloc((512 - (pax.length % 512)) % 512);
  return Buffer.concat([header('x', 'PaxHeader', pax.length), pax, padding, header('0', name, 0)]);
}
