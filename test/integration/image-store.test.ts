import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Images } from '../../src/image/images.ts';
import type { Image } from '../../src/image/types.ts';
import {
  buildImage,
  type Entry,
  type ImageFixture,
  imageFixture,
  importLayers,
  layer,
  nothingLeft,
  ociArchive,
  streamOf,
} from '../support/images.ts';

/** statfs(2), `f_type`. */
const EXT4 = 0xef53;

let fixture: ImageFixture;

beforeEach(() => {
  fixture = imageFixture();
});

afterEach(() => fixture.close());

function fixtureOptions() {
  const { db, root, hostsDir } = fixture;
  return { db, root, hostsDir, logger: pino({ level: 'silent' }) };
}

describe('a daemon that starts', () => {
  it('removes what an earlier one left half done, and keeps the rest', async () => {
    const image = await importLayers(fixture, [{ name: 'a', content: 'x' }]);
    const before = fixture.leftovers();
    mkdirSync(join(fixture.root, 'layers/.tmp-1/fs/d'), { recursive: true });
    mkdirSync(join(fixture.root, 'layers/zz/fs'), { recursive: true });
    writeFileSync(join(fixture.root, 'ingest/part'), 'x');
    writeFileSync(join(fixture.root, 'content/sha256', 'b'.repeat(64)), 'x');
    await fixture.images.sweep();
    expect(fixture.leftovers()).toEqual(before);
    const later = new Images({ ...fixtureOptions(), pinnedGlobs: ['example.com/**'] });
    expect(later.list()).toEqual([{ ...image, pinned: true }]);
    await later.close();
  });

  it('unpacks and fetches again what a power cut took', async () => {
    const image = await importLayers(fixture, [{ name: 'a', content: 'x' }]);
    rmSync(join(fixture.root, 'layers'), { recursive: true });
    rmSync(join(fixture.root, 'content/sha256'), { recursive: true });
    for (const dir of ['layers', 'content/sha256']) mkdirSync(join(fixture.root, dir));
    expect(await importLayers(fixture, [{ name: 'a', content: 'x' }])).toEqual(image);
    const [dir = ''] = fixture.images.lowerdirs(image);
    expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('x');
  });
});

describe('removing', () => {
  it('takes all names, frees what only it needed, and is repeatable', async () => {
    const shared: Entry[] = [{ name: 'shared', content: 'x' }];
    const image = await importLayers(fixture, shared, [{ name: 'a', content: 'x' }]);
    expect(await fixture.images.remove('example.com/team/app:1')).toBe(true);
    expect(await fixture.images.remove(image.id)).toBe(false);
    await nothingLeft(fixture);
    expect(fixture.images.fsInfo()).toMatchObject({ usedBytes: 0n, inodesUsed: 0n });
  });

  it('leaves its content to the containers that use it, until they have gone', async () => {
    const used = new Set<string>();
    await fixture.close();
    fixture = imageFixture({ used: () => used });
    const image = await importLayers(fixture, [{ name: 'a', content: 'x' }]);
    const [dir = ''] = fixture.images.lowerdirs(image);
    used.add(image.id);
    expect(await fixture.images.remove(image.id)).toBe(true);
    expect(await fixture.images.remove(image.id)).toBe(false);
    expect(fixture.images.list()).toEqual([]);
    expect(fixture.images.get('example.com/team/app:1')).toBeUndefined();
    await fixture.images.collect();
    expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('x');
    expect((await fixture.images.diskUsage()).removedBytes).toBeGreaterThan(0n);
    // Also over a restart.
    const later = new Images({ ...fixtureOptions(), pinnedGlobs: [], used: () => used });
    await later.sweep();
    expect(later.list()).toEqual([]);
    expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('x');
    await later.close();
    // It may come back meanwhile, and is then an image as any other.
    expect(await importLayers(fixture, [{ name: 'a', content: 'x' }])).toEqual(image);
    expect(fixture.images.lowerdirs(image)).toEqual([dir]);
    await fixture.images.remove(image.id);
    used.clear();
    await fixture.images.collect();
    await nothingLeft(fixture);
  });

  it('of all that no container uses spares pinned images', async () => {
    const used = new Set<string>();
    await fixture.close();
    fixture = imageFixture({ used: () => used, pinnedGlobs: ['example.com/team/pinned:*'] });
    const add = async (name: string): Promise<Image> => {
      const built = buildImage([await layer([{ name, content: name.repeat(10_000) }])]);
      const names = { 'io.containerd.image.name': `example.com/team/${name}:1` };
      const [image] = await fixture.images.importArchive(streamOf(await ociArchive(built, names)));
      return image as Image;
    };
    const [pinned, busy, idle] = [await add('pinned'), await add('busy'), await add('idle')];
    used.add(busy.id);
    expect(await fixture.images.prune({ images: false })).toEqual({ images: [], freedBytes: 0n });
    const { images, freedBytes } = await fixture.images.prune({ images: true });
    expect(images.map(({ id }) => id)).toEqual([idle.id]);
    expect(freedBytes).toBeGreaterThan(40_000n);
    expect(new Set(fixture.images.list().map(({ id }) => id))).toEqual(new Set([pinned.id, busy.id]));
  });
});

describe('the use of the disk', () => {
  it('is told to the block, of all and of each image', async () => {
    const shared: Entry[] = [
      { name: 'd/', type: 'directory' },
      { name: 'd/shared', content: 'x'.repeat(100_001) },
      { name: 'd/again', type: 'link', linkname: 'd/shared' },
    ];
    const first = await importLayers(fixture, shared, [{ name: 'a', content: 'a'.repeat(5000) }]);
    const second = await importLayers(fixture, shared, [{ name: 'b', content: 'b'.repeat(50_000) }]);
    const du = (...paths: string[]): bigint[] =>
      spawnSync('du', ['-s', '--block-size=1', ...paths.map((path) => join(fixture.root, path))])
        .stdout.toString()
        .trim()
        .split('\n')
        .map((line) => BigInt(line.split('\t')[0] ?? 0));
    const folders = ['layers', 'content/sha256'].reduce(
      (sum, path) => sum + BigInt(statSync(join(fixture.root, path)).blocks * 512),
      0n,
    );
    const [layers = 0n, blobs = 0n] = du('layers', 'content/sha256');
    const { usedBytes, inodesUsed } = fixture.images.fsInfo();
    expect(usedBytes).toBe(layers + blobs - folders);
    const found = spawnSync('find', [fixture.root, '-mindepth', '1', '-printf', '%i\n']).stdout.toString();
    // content, content/sha256, content/sha512, ingest and layers are there without any image.
    expect(inodesUsed).toBe(BigInt(new Set(found.trim().split('\n')).size - 5));
    const usage = await fixture.images.diskUsage();
    expect(usage.blobBytes).toBe(blobs - BigInt(statSync(join(fixture.root, 'content/sha256')).blocks * 512));
    const [a, b] = [first, second].map(({ id }) => usage.images.find(({ image }) => image.id === id));
    expect((a?.bytes ?? 0n) + (b?.uniqueBytes ?? 0n)).toBe(usedBytes);
    expect(a?.uniqueBytes).toBeLessThan(b?.uniqueBytes ?? 0n);
    await fixture.images.remove(second.id);
    expect(fixture.images.fsInfo().usedBytes).toBe(usedBytes - (b?.uniqueBytes ?? 0n));
  });
});

it.skipIf(statfsSync(tmpdir()).type !== EXT4)('layers get block groups of their own', () => {
  const { stdout } = spawnSync('lsattr', ['-d', join(fixture.root, 'layers')]);
  expect(String(stdout)).toMatch(/^\S*T/);
});
