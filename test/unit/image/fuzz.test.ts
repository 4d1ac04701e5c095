import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { BerthError } from '../../../src/errors.ts';
import { parseConfig, parseDocument } from '../../../src/image/manifest.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { parseChallenges } from '../../../src/image/registry/challenge.ts';
import { parseHosts } from '../../../src/image/registry/hosts.ts';
import { type TarEntry, TarReader } from '../../../src/image/tar/reader.ts';
import { decompress } from '../../../src/image/unpack/decompress.ts';
import { buildImage, layer, tar } from '../../support/images.ts';

/** Numbers that look random and are the same in every run (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** A copy with some bytes changed, a piece taken out, doubled or cut off. */
function mutate(bytes: Buffer, next: (below: number) => number): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = next(8); i >= 0; i--) {
    const at = next(copy.length);
    copy[at] = [0, 0xff, 0x30 + next(10), next(256), (copy[at] ?? 0) ^ (1 << next(8))][next(5)] ?? 0;
  }
  const [a, b] = [next(copy.length), next(copy.length)].sort((x, y) => x - y) as [number, number];
  if (next(4) > 0) return copy;
  const pieces = [
    [copy.subarray(0, a), copy.subarray(b)],
    [copy.subarray(0, b), copy.subarray(a)],
    [copy.subarray(0, a)],
  ];
  return Buffer.concat(pieces[next(3)] ?? []);
}

const ROUNDS = 1500;

/** Whatever `parse` is given, it answers or refuses as berth refuses. */
async function survive(samples: readonly Buffer[], parse: (bytes: Buffer) => unknown): Promise<void> {
  let [accepted, refused] = [0, 0];
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const next = random(seed);
    const bytes = mutate(samples[next(samples.length)] ?? Buffer.alloc(1), next);
    try {
      await parse(bytes);
      accepted += 1;
    } catch (e: unknown) {
      if (!(e instanceof BerthError))
        throw new Error(`seed ${seed}: ${bytes.toString('base64')}`, { cause: e });
      refused += 1;
    }
  }
  // Samples of which nothing or everything passes would not reach the code behind the first check.
  expect(accepted).toBeGreaterThan(0);
  expect(refused).toBeGreaterThan(0);
}

/** A header of the old GNU format with a list that goes on in a second block. */
async function sparseArchive(): Promise<Buffer> {
  const archive = await tar([
    { name: 'sparse', content: Buffer.alloc(2048) },
    { name: 'next', content: 'x' },
  ]);
  archive.write('S', 156);
  archive.write('00000000000\0' + '00000001000\0' + '00000010000\0' + '00000003000\0', 386, 'latin1');
  archive[482] = 0;
  archive.write('00000020000\0', 483, 'latin1');
  archive.fill(0x20, 148, 156);
  const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return archive;
}

/** Checksums would refuse nearly every change, and hide what is behind them. */
function withChecksums(archive: Buffer): Buffer {
  for (let at = 0; at + 512 <= archive.length; at += 512) {
    const block = archive.subarray(at, at + 512);
    if (block.toString('latin1', 257, 262) !== 'ustar') continue;
    block.fill(0x20, 148, 156);
    block.write(
      `${block
        .reduce((total, byte) => total + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    );
  }
  return archive;
}

describe('damaged or hostile input is read or refused, nothing else:', () => {
  it('tar archives', async () => {
    const pax = await tar([
      { name: 'é'.repeat(200), content: 'long', pax: { 'SCHILY.xattr.user.a': 'b', mtime: '1.5' } },
      { name: 'd/', type: 'directory' },
      { name: 'l', type: 'symlink', linkname: 'x'.repeat(150) },
      { name: 'dev', type: 'character-device', devmajor: 1, devminor: 3 },
    ]);
    await survive([pax, await sparseArchive()], (bytes) => {
      let content = 0;
      let current: TarEntry | undefined;
      const reader = new TarReader({
        entry: (entry) => {
          current = entry;
          content = 0;
        },
        data: (chunk) => {
          content += chunk.length;
        },
        end: () => expect(content).toBe(current?.size),
      });
      const archive = withChecksums(bytes);
      for (let at = 0; at < archive.length; at += 700) reader.push(archive.subarray(at, at + 700));
      reader.finish();
    });
  });

  it('compressed streams', async () => {
    const text = Buffer.from('some text that compresses '.repeat(500));
    const zstd = Buffer.concat([zstdCompressSync(text), zstdCompressSync(text)]);
    await survive([gzipSync(text), zstd, text.subarray(0, 300)], async (bytes) => {
      const source = async function* () {
        yield bytes;
      };
      let size = 0;
      for await (const chunk of decompress(source())) size += chunk.length;
      expect(size).toBeLessThan(2 ** 30);
    });
  });

  it('manifests, indexes and configs', async () => {
    const image = buildImage([await layer([{ name: 'a', content: 'x' }])]);
    const index = {
      schemaVersion: 2,
      manifests: [{ ...image.manifest, platform: { os: 'linux', architecture: 'arm64' } }],
    };
    const manifest = image.blobs.get(image.manifest.digest) ?? Buffer.alloc(1);
    await survive([manifest, Buffer.from(JSON.stringify(index))], (bytes) => parseDocument(bytes, 'x'));
    await survive([image.blobs.get(image.id) ?? Buffer.alloc(1)], (bytes) => parseConfig(bytes, 'x', 1));
  });

  it('references', async () => {
    const samples = ['docker.io/library/busybox:1.36', `[::1]:5000/a/b-c@sha256:${'0'.repeat(64)}`, 'a'];
    await survive(
      samples.map((text) => Buffer.from(text)),
      (bytes) => parseReference(bytes.toString('latin1')),
    );
  });

  it('hosts.toml files and challenges', async () => {
    const toml =
      'server = "https://a.example"\n[host."http://b.example/x"]\ncapabilities = ["pull"]\nskip_verify = true\n[host."http://b.example/x".header]\nx = ["y"]\n';
    await survive([Buffer.from(toml)], (bytes) => parseHosts(bytes.toString(), '/nowhere', 'a.example'));
    const next = random(7);
    const challenge = Buffer.from(
      'Bearer realm="https://a/t",service="s",scope="repository:a:pull", Basic realm="x"',
    );
    for (let i = 0; i < ROUNDS; i++) parseChallenges([mutate(challenge, next).toString('latin1')]);
  });
});
