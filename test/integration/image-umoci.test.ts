import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { mountOverlay, unmount } from '../../src/sys/mount.ts';
import {
  buildImage,
  type Entry,
  type ImageFixture,
  imageFixture,
  layer,
  listing,
  ociArchive,
  streamOf,
} from '../support/images.ts';

let fixture: ImageFixture;
let dir: string;

beforeEach(() => {
  fixture = imageFixture();
  dir = mkdtempSync(join(tmpdir(), 'berth-umoci-'));
});
afterEach(async () => {
  unmount(join(dir, 'merged'));
  rmSync(dir, { recursive: true, force: true });
  await fixture.close();
});

const file = (name: string, content = name, more: Partial<Entry> = {}): Entry => ({ name, content, ...more });
const folder = (name: string, more: Partial<Entry> = {}): Entry => ({ name, type: 'directory', ...more });
const removed = (name: string): Entry => file(name.replace(/([^/]*)$/, '.wh.$1'), '');

it('an image with all that layers can do to each other is the same as umoci unpacks it', async () => {
  const layers: Entry[][] = [
    [
      folder('bin', { mode: 0o755 }),
      file('bin/tool', 'tool', { mode: 0o4755 }),
      { name: 'bin/alias', type: 'link', linkname: 'bin/tool' },
      folder('tmp', { mode: 0o1777 }),
      folder('etc'),
      file('etc/a', 'a', { uid: 12, gid: 34, mode: 0o640 }),
      file('etc/b'),
      folder('opaque/sub'),
      file('opaque/old'),
      file('opaque/sub/old'),
      folder('becomes-file'),
      file('becomes-file/inside'),
      file('becomes-folder'),
      { name: 'link-to-etc', type: 'symlink', linkname: 'etc' },
      { name: 'fifo', type: 'fifo', mode: 0o600 },
      { name: 'null', type: 'character-device', devmajor: 1, devminor: 3, mode: 0o666 },
      folder('shared', { mode: 0o2775, gid: 50 }),
      file('shared/grouped', 'g', { gid: 50 }),
      file('shared/root', 'r'),
      file('.whole', 'not a whiteout'),
    ],
    [
      removed('etc/a'),
      file('tmp/implied-parent'),
      file('opaque/.wh..wh..opq', ''),
      file('opaque/new'),
      folder('opaque/sub'),
      file('opaque/sub/new'),
      removed('becomes-file'),
      file('becomes-file', 'now a file'),
      removed('becomes-folder'),
      folder('becomes-folder'),
      file('becomes-folder/inside'),
      file('bin/tool', 'new tool', { mode: 0o755 }),
      { name: 'bin/both', type: 'link', linkname: 'bin/tool' },
      removed('never-was'),
    ],
    [
      file('etc/a', 'back again', { mode: 0o600 }),
      removed('bin'),
      folder('bin', { mode: 0o700 }),
      file('bin/only'),
      removed('link-to-etc'),
      folder('link-to-etc'),
      file('link-to-etc/own'),
    ],
  ];
  const built = buildImage(
    await Promise.all(layers.map((entries) => layer(entries, { with: gzipSync, suffix: 'gzip' }))),
  );
  const archive = await ociArchive(built, { 'org.opencontainers.image.ref.name': 'v1' });
  const [image] = await fixture.images.importArchive(streamOf(archive), { name: 'example.com/app:1' });
  if (image === undefined) throw new Error('no image');
  for (const name of ['layout', 'up', 'work', 'merged']) mkdirSync(join(dir, name));
  writeFileSync(join(dir, 'archive.tar'), archive);
  execFileSync('tar', ['-xf', join(dir, 'archive.tar'), '-C', join(dir, 'layout')]);
  execFileSync('umoci', ['unpack', '--image', `${dir}/layout:v1`, join(dir, 'bundle')], { stdio: 'pipe' });
  mountOverlay({
    lowerdirs: fixture.images.lowerdirs(image),
    upperdir: join(dir, 'up'),
    workdir: join(dir, 'work'),
    target: join(dir, 'merged'),
  });
  const expected = listing(join(dir, 'bundle/rootfs'));
  expect(expected).toContain('./bin/only');
  expect(listing(join(dir, 'merged'))).toBe(expected);
});
