import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rootfsArchive } from '../../src/image/rootfs.ts';
import type { Image } from '../../src/image/types.ts';
import { makedev, mknod, S_IFCHR, S_IFIFO } from '../../src/sys/mknod.ts';
import { lgetxattr, lsetxattr } from '../../src/sys/xattr.ts';
import {
  buildImage,
  hostArchitecture,
  type ImageFixture,
  imageFixture,
  importLayers,
  layer,
  listing,
  sha256,
  streamOf,
  tar,
} from '../support/images.ts';
import { type FakeRegistry, startFakeRegistry } from '../support/registry.ts';

let fixture: ImageFixture;
let other: ImageFixture;
let registry: FakeRegistry;
let dir: string;

beforeEach(async () => {
  fixture = imageFixture();
  other = imageFixture();
  registry = await startFakeRegistry();
  dir = mkdtempSync(join(tmpdir(), 'berth-export-'));
});

afterEach(async () => {
  await fixture.close();
  await other.close();
  await registry.stop();
  rmSync(dir, { recursive: true, force: true });
});

async function exported(...refs: string[]): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  const { signal } = new AbortController();
  await fixture.images.exportImages(refs, async (piece) => void pieces.push(piece), signal);
  return Buffer.concat(pieces);
}

/** Pulls an image of a gzip and a zstd layer that an index offers for two architectures. */
async function pullIndexed(): Promise<{ image: Image; name: string; index: string }> {
  const built = buildImage([
    await layer([{ name: 'a', content: 'x'.repeat(9000) }], { with: gzipSync, suffix: 'gzip' }),
    await layer([{ name: 'b', content: 'y'.repeat(9000) }], { with: zstdCompressSync, suffix: 'zstd' }),
  ]);
  registry.add('team/app', 'unused', built);
  const elsewhere = { ...built.manifest, digest: sha256(Buffer.from('not here')) };
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const body = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      manifests: [
        { ...elsewhere, platform: { os: 'linux', architecture: 's390x' } },
        { ...built.manifest, platform: { os: 'linux', architecture: hostArchitecture() } },
      ],
    }),
  );
  for (const key of ['v1', sha256(body)])
    registry.documents.set(`team/app/manifests/${key}`, { body, mediaType });
  const name = `${registry.host}/team/app:v1`;
  return { image: await fixture.images.pull(name), name, index: sha256(body) };
}

/** What `docker save` wrote before it had digests, of one layer. */
async function importDocker(name: string): Promise<Image> {
  const one = await tar([{ name: 'one', content: 'of docker' }]);
  const config = {
    os: 'linux',
    architecture: hostArchitecture(),
    rootfs: { type: 'layers', diff_ids: [sha256(one)] },
  };
  const archive = await tar([
    { name: 'one/layer.tar', content: gzipSync(one) },
    { name: 'config.json', content: JSON.stringify(config) },
    {
      name: 'manifest.json',
      content: JSON.stringify([{ Config: 'config.json', RepoTags: [name], Layers: ['one/layer.tar'] }]),
    },
  ]);
  const [image] = await fixture.images.importArchive(streamOf(archive));
  return image as Image;
}

describe('an exported archive', () => {
  it('of several images is the same elsewhere, digest by digest', async () => {
    const { image, name, index } = await pullIndexed();
    const docker = await importDocker('app:2');
    const archive = await exported(name, 'app:2');
    expect(await exported(name, 'app:2')).toEqual(archive);
    const imported = await other.images.importArchive(streamOf(archive));
    expect(imported).toEqual([image, docker]);
    expect(imported[0]?.repoDigests).toEqual([`${registry.host}/team/app@${index}`]);
    // With both names of the image, as an id stands for all of them.
    const [again] = await other.images.importArchive(streamOf(await exported(image.id)));
    expect(again?.repoTags).toEqual(image.repoTags);
  });

  it('is read by other tools, as OCI layout and as archive of docker', async () => {
    const { image, name } = await pullIndexed();
    writeFileSync(join(dir, 'images.tar'), await exported(name));
    for (const source of ['oci-archive', 'docker-archive']) {
      const to = join(dir, source);
      execFileSync('skopeo', ['copy', '-q', `${source}:${dir}/images.tar`, `dir:${to}`], { stdio: 'pipe' });
      const manifest = JSON.parse(readFileSync(join(to, 'manifest.json'), 'utf8'));
      const config = readFileSync(join(to, manifest.config.digest.replace('sha256:', '')));
      expect(JSON.parse(String(config)).rootfs.diff_ids).toEqual(
        JSON.parse(await fixture.images.rawConfig(image)).rootfs.diff_ids,
      );
      // The other format has no compressed layers, nor their digests.
      if (source === 'oci-archive') expect(manifest.config.digest).toBe(image.id);
    }
  });

  it('says before the first byte what is not there', async () => {
    await expect(exported('no/such:1')).rejects.toMatchObject({ kind: 'notFound', message: /no\/such:1/ });
  });

  it('is not finished with a blob that the disk has changed', async () => {
    const image = await importLayers(fixture, [{ name: 'a', content: 'x' }]);
    const blob = join(fixture.root, 'content', image.id.replace(':', '/'));
    writeFileSync(blob, readFileSync(blob, 'utf8').replace('linux', 'lynux'));
    await expect(exported(image.id)).rejects.toMatchObject({ message: /has been changed on disk/ });
  });
});

describe('an image of a directory', () => {
  const SECONDS = 1_500_000_000;

  /** With all that a layer can hold. */
  function makeTree(root: string): void {
    mkdirSync(join(root, 'bin'), { recursive: true });
    mkdirSync(join(root, 'tmp', 'd'.repeat(120)), { recursive: true });
    writeFileSync(join(root, 'bin/tool'), 'tool');
    chownSync(join(root, 'bin/tool'), 3_000_000, 12);
    chmodSync(join(root, 'bin/tool'), 0o4755);
    lsetxattr(join(root, 'bin/tool'), 'user.note', Buffer.from([0, 0xff, 0x0a, 0x80]));
    linkSync(join(root, 'bin/tool'), join(root, 'bin/zz-alias'));
    symlinkSync('t'.repeat(150), join(root, 'link'));
    writeFileSync(join(root, 'empty'), '');
    writeFileSync(join(root, 'tmp', 'd'.repeat(120), 'é'), 'content of a file with a long name');
    truncateSync(join(root, 'empty'), 700_000);
    mknod(join(root, 'fifo'), S_IFIFO | 0o600, 0);
    mknod(join(root, 'tty'), S_IFCHR | 0o666, makedev(5, 300));
    chmodSync(join(root, 'tmp'), 0o1777);
    for (const name of [
      'bin/tool',
      'empty',
      `tmp/${'d'.repeat(120)}/é`,
      'fifo',
      'tty',
      'bin',
      `tmp/${'d'.repeat(120)}`,
      'tmp',
    ])
      utimesSync(join(root, name), SECONDS, SECONDS);
    lutimesSync(join(root, 'link'), SECONDS, SECONDS);
  }

  async function made(root: string, epoch?: number): Promise<Image> {
    const config = { env: ['A=b'], cmd: ['/bin/tool'], labels: { b: '2', a: '1' }, volumes: ['/data'] };
    const options = { name: 'localhost/made:1', config, ...(epoch === undefined ? {} : { epoch }) };
    const [image] = await fixture.images.importArchive(rootfsArchive(root, options));
    return image as Image;
  }

  it('has all of it, and the same directory gives the same image', async () => {
    makeTree(join(dir, 'root'));
    const server = createServer().listen(join(dir, 'root/socket'));
    try {
      const image = await made(join(dir, 'root'));
      expect(image).toMatchObject({
        repoTags: ['localhost/made:1'],
        config: {
          env: ['A=b'],
          cmd: ['/bin/tool'],
          labels: { a: '1', b: '2' },
          volumes: ['/data'],
          user: '',
        },
      });
      const [unpacked = ''] = fixture.images.lowerdirs(image);
      server.close();
      await expect.poll(() => listing(join(dir, 'root'))).toBe(listing(unpacked));
      expect(lgetxattr(join(unpacked, 'bin/tool'), 'user.note')).toEqual(Buffer.from([0, 0xff, 0x0a, 0x80]));
      makeTree(join(dir, 'copy'));
      expect(await made(join(dir, 'copy'))).toEqual(image);
      writeFileSync(join(dir, 'copy/bin/tool'), 'TOOL');
      expect((await made(join(dir, 'copy'))).id).not.toBe(image.id);
      const early = await made(join(dir, 'copy'), SECONDS);
      expect(JSON.parse(await fixture.images.rawConfig(early)).created).toBe('2017-07-14T02:40:00.000Z');
    } finally {
      server.close();
    }
  });

  it('is unpacked by tar as by berth', async () => {
    makeTree(join(dir, 'root'));
    const archive = rootfsArchive(join(dir, 'root'), { name: 'a', config: {} });
    writeFileSync(join(dir, 'image.tar'), Buffer.concat(await Readable.from(archive).toArray()));
    mkdirSync(join(dir, 'out'));
    execFileSync('tar', ['-xf', join(dir, 'image.tar'), '-C', dir, 'layer.tar']);
    execFileSync('tar', [
      '-xpf',
      join(dir, 'layer.tar'),
      '--xattrs',
      '--xattrs-include=*',
      '--numeric-owner',
      '-C',
      join(dir, 'out'),
    ]);
    expect(listing(join(dir, 'out'))).toBe(listing(join(dir, 'root')));
    expect(lgetxattr(join(dir, 'out/bin/tool'), 'user.note')).toHaveLength(4);
  });

  it('cannot have files that would hide others', async () => {
    mkdirSync(join(dir, 'root/sub'), { recursive: true });
    writeFileSync(join(dir, 'root/sub/.wh.x'), '');
    await expect(made(join(dir, 'root'))).rejects.toMatchObject({
      kind: 'invalid',
      message: /^sub\/.wh.x: would hide files/,
    });
  });
});
