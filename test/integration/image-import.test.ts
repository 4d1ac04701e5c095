import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BerthError } from '../../src/errors.ts';
import type { Image } from '../../src/image/types.ts';
import {
  buildImage,
  type Entry,
  type ImageFixture,
  imageFixture,
  importLayers,
  layer,
  NAME,
  nothingLeft,
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
    await nothingLeft(fixture);
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
      // It has a manifest then, though the archive had none.
      repoDigests: [expect.stringMatching(/^docker.io\/library\/app@sha256:/)],
    });
    expect(fixture.images.lowerdirs(image as Image)).toHaveLength(2);
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
    const failure = await importLayers(fixture, [{ name: 'fine', content: 'x' }], entries).catch(
      (e: unknown) => e,
    );
    expect(failure).toBeInstanceOf(BerthError);
    expect(failure).toMatchObject({ kind: 'invalid', message: expect.stringMatching(message) });
    await nothingLeft(fixture);
  });

  it('another layer digest than the manifest says', async () => {
    const built = buildImage([await layer([{ name: 'a', content: 'x' }])]);
    const [digest = ''] = [...built.blobs.keys()].slice(1, 2);
    built.blobs.set(digest, Buffer.from(built.blobs.get(digest) ?? '').fill(1, 0, 1));
    const archive = await ociArchive(built, NAME);
    await expect(fixture.images.importArchive(streamOf(archive))).rejects.toThrow(/arrived with the digest/);
    await nothingLeft(fixture);
  });

  it('another diff ID than the config says', async () => {
    const built = buildImage([await layer([{ name: 'a', content: 'x' }])], {
      diffIds: [sha256(Buffer.from('other'))],
    });
    await expect(fixture.images.importArchive(streamOf(await ociArchive(built, NAME)))).rejects.toThrow(
      /its diff ID is/,
    );
    await nothingLeft(fixture);
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
    await nothingLeft(fixture);
  });

  it('an import that is cancelled', async () => {
    const built = buildImage([await layer([{ name: 'a', content: Buffer.alloc(3_000_000) }])]);
    const abort = new AbortController();
    const importing = fixture.images.importArchive(streamOf(await ociArchive(built, NAME)), {
      signal: abort.signal,
      onProgress: ({ phase }) => phase === 'unpack' && abort.abort(),
    });
    await expect(importing).rejects.toThrow();
    await nothingLeft(fixture);
  });
});
