import { generateKeyPairSync, sign } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { BerthError } from '../../../src/errors.ts';
import { digestOf, parseConfig, parseDocument } from '../../../src/image/manifest.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { parseChallenges } from '../../../src/image/registry/challenge.ts';
import { parseHosts } from '../../../src/image/registry/hosts.ts';
import { cosignSignatures } from '../../../src/image/signature/cosign.ts';
import { parseKey } from '../../../src/image/signature/keys.ts';
import { findFault } from '../../../src/image/signature/verify.ts';
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

const keyPairs = () => ({
  ed25519: generateKeyPairSync('ed25519'),
  ecdsa: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
});

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

  describe('of signatures:', () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    const expected = { digest, tag: 'v1', isIdentity: (name: string) => name === 'a.example/b' };
    const pair = generateKeyPairSync('ed25519');
    const text = Buffer.from(
      JSON.stringify({
        critical: {
          identity: { 'docker-reference': 'a.example/b:v1' },
          image: { 'docker-manifest-digest': digest },
          type: 'cosign container image signature',
        },
        optional: { by: 'x'.repeat(200) },
      }),
    );

    /** What holds is accepted, a fault refused; neither throws. */
    const check = (...args: Parameters<typeof findFault>): void => {
      const fault = findFault(...args);
      if (fault !== undefined) throw new BerthError('signatureInvalid', fault);
    };

    it('payloads that are signed', async () => {
      await survive([text], (payload) =>
        check({ payload, signature: sign(null, payload, pair.privateKey) }, [pair.publicKey], expected),
      );
    });

    it.each(Object.entries(keyPairs()))(
      'signatures and keys of %s',
      async (type, { publicKey, privateKey }) => {
        const good = sign(type === 'ed25519' ? null : 'sha256', text, privateKey);
        await survive([Buffer.from(`${good.toString('base64')}${' '.repeat(40)}`)], (base64) => {
          const signature = Buffer.from(base64.toString('latin1'), 'base64');
          check({ payload: text, signature }, [publicKey], expected);
        });
        const pem = Buffer.from(`a comment\n${publicKey.export({ type: 'spki', format: 'pem' })}`);
        await survive([pem], (bytes) => parseKey(bytes, 'key.pem'));
        const der = publicKey.export({ type: 'spki', format: 'der' });
        // A key that is none any more may be there beside a good one, which must be found behind it.
        await survive([Buffer.concat([der, Buffer.alloc(20)])], (bytes) => {
          const wrapped = `-----BEGIN PUBLIC KEY-----\n${bytes.toString('base64')}\n-----END PUBLIC KEY-----\n`;
          check(
            { payload: text, signature: good },
            [parseKey(Buffer.from(wrapped), 'key.pem'), publicKey],
            expected,
          );
        });
      },
    );

    it('manifests of signatures', async () => {
      const payload = digestOf(text);
      const layer = {
        mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
        digest: payload,
        size: text.length,
        annotations: { 'dev.cosignproject.cosign/signature': 'AAAA' },
      };
      const manifest = {
        schemaVersion: 2,
        config: { mediaType: 'x', digest, size: 2 },
        layers: [layer, layer],
      };
      await survive([Buffer.from(JSON.stringify(manifest))], async (bytes) => {
        const client = {
          manifest: async () => ({ digest: digestOf(bytes), bytes, mediaType: '' }),
          blob: async function* () {
            yield text;
          },
        };
        for await (const found of cosignSignatures(client, digest, new AbortController().signal))
          expect(found.payload).toEqual(text);
      });
    });
  });
});
