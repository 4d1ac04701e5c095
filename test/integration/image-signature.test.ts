import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { SignatureRule } from '../../src/image/signature/policy.ts';
import {
  type BuiltImage,
  buildImage,
  type ImageFixture,
  imageFixture,
  layer,
  nothingLeft,
  sha256,
} from '../support/images.ts';
import { type Registry, startRegistry } from '../support/registry.ts';

const PAIRS = {
  p256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ed25519: generateKeyPairSync('ed25519'),
  other: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  p384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
};
type Name = keyof typeof PAIRS;

let registry: Registry;
let image: BuiltImage;
let dir: string;
let fixture: ImageFixture | undefined;
let count = 0;

beforeAll(async () => {
  registry = await startRegistry();
  image = buildImage([await layer([{ name: 'a', content: 'x' }])]);
  dir = mkdtempSync(join(tmpdir(), 'berth-keys-'));
  for (const [name, { publicKey }] of Object.entries(PAIRS))
    writeFileSync(join(dir, name), publicKey.export({ type: 'spki', format: 'pem' }));
});

afterAll(async () => {
  await registry.stop();
  rmSync(dir, { recursive: true });
});

afterEach(() => fixture?.close());

/** A repository that nobody else has, with the image in it. */
async function pushed(): Promise<{ repository: string; ref: string }> {
  count += 1;
  const repository = `team/app-${count}`;
  await registry.push(repository, 'v1', image);
  return { repository, ref: `${registry.host}/${repository}:v1` };
}

/** What cosign signs. */
function payload(
  reference: string,
  digest = image.manifest.digest,
  type = 'cosign container image signature',
) {
  const critical = {
    identity: { 'docker-reference': reference },
    image: { 'docker-manifest-digest': digest },
    type,
  };
  return Buffer.from(JSON.stringify({ critical, optional: { by: 'a test' } }));
}

function signed(by: Name, bytes: Buffer): { bytes: Buffer; signature: string } {
  const key: KeyObject = PAIRS[by].privateKey;
  return { bytes, signature: sign(by === 'ed25519' ? null : 'sha256', bytes, key).toString('base64') };
}

/** Puts signatures where cosign does. */
async function attach(
  repository: string,
  signatures: readonly { bytes: Buffer; signature: string }[],
): Promise<void> {
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const config = Buffer.from('{}');
  const blobs = new Map(
    [config, ...signatures.map(({ bytes }) => bytes)].map((bytes) => [sha256(bytes), bytes]),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: sha256(config),
        size: config.length,
      },
      layers: signatures.map(({ bytes, signature }) => ({
        mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
        digest: sha256(bytes),
        size: bytes.length,
        annotations: { 'dev.cosignproject.cosign/signature': signature },
      })),
    }),
  );
  blobs.set(sha256(manifest), manifest);
  const tag = `${image.manifest.digest.replace(':', '-')}.sig`;
  const descriptor = { mediaType, digest: sha256(manifest), size: manifest.length };
  await registry.push(repository, tag, { id: '', blobs, manifest: descriptor });
}

/** Images under these rules. */
function under(...rules: Partial<SignatureRule>[]): ImageFixture {
  const defaults = { names: ['**'], policy: 'signed', keys: [join(dir, 'p256')], identities: [] } as const;
  fixture = imageFixture({ signatures: rules.map((rule) => ({ ...defaults, ...rule })) });
  return fixture;
}

async function refusal(ref: string, ...rules: Partial<SignatureRule>[]): Promise<string> {
  const refusing = under(...rules);
  const failure: unknown = await refusing.images.pull(ref).catch((e: unknown) => e);
  expect(failure).toMatchObject({ kind: 'signatureInvalid' });
  await nothingLeft(refusing);
  await refusing.close();
  const prefix = `SignatureValidationFailed: ${ref}, which is ${image.manifest.digest}: `;
  expect(String(failure)).toContain(prefix);
  return String(failure).split(prefix)[1] ?? '';
}

describe('a signed image', () => {
  it.each(['p256', 'rsa', 'ed25519'] as const)('is pulled with a key of %s', async (name) => {
    const { repository, ref } = await pushed();
    await attach(repository, [signed(name, payload(`${registry.host}/${repository}`))]);
    const { images } = under({ keys: [join(dir, 'other'), join(dir, name)] });
    expect(await images.pull(ref)).toMatchObject({ id: image.id, repoTags: [ref] });
    const byDigest = await images.pull(`${registry.host}/${repository}@${image.manifest.digest}`);
    expect(byDigest.id).toBe(image.id);
  });

  it('needs one good signature among others', async () => {
    const { repository, ref } = await pushed();
    const own = payload(`${registry.host}/${repository}:v1`);
    const forged = { bytes: own, signature: 'AAAA' };
    await attach(repository, [forged, signed('other', payload('x')), signed('p256', own)]);
    expect(await under({}).images.pull(ref)).toMatchObject({ id: image.id });
  });

  it('may have been copied from elsewhere with its signature, if a rule says from where', async () => {
    const { repository, ref } = await pushed();
    await attach(repository, [signed('p256', payload('index.docker.io/library/busybox'))]);
    expect(await refusal(ref, {})).toBe('a signature is for "index.docker.io/library/busybox"');
    const { images } = under({ identities: ['docker.io/library/*'] });
    expect(await images.pull(ref)).toMatchObject({ id: image.id });
  });
});

describe('a rule', () => {
  it('counts when it is the first for a repository', async () => {
    const { ref } = await pushed();
    const host = `${registry.host}/**`;
    expect(await refusal(ref, { names: [host], policy: 'reject' }, { policy: 'accept' })).toBe(
      'the configuration rejects it',
    );
    const { images } = under(
      { names: ['docker.io/**'], policy: 'reject' },
      { names: [host], policy: 'accept' },
      { policy: 'reject' },
    );
    expect(await images.pull(ref)).toMatchObject({ id: image.id });
  });

  it('that names no usable key refuses, naming the file', async () => {
    const { ref } = await pushed();
    expect(await refusal(ref, { keys: ['/no/such.pub'] })).toMatch(
      /^\/no\/such.pub: is no public key: ENOENT/,
    );
    expect(await refusal(ref, { keys: [join(dir, 'p384')] })).toMatch(/p384: must be a key of ECDSA P-256/);
  });
});

it('an image is refused without a signature that is for it, and leaves nothing', async () => {
  const { repository, ref } = await pushed();
  const name = `${registry.host}/${repository}`;
  expect(await refusal(ref, {})).toBe('it is not signed');
  const good = signed('p256', payload(name));
  const cases: [{ bytes: Buffer; signature: string }, string | RegExp][] = [
    [signed('other', payload(name)), 'a signature is of none of the keys'],
    [{ ...good, bytes: payload(name, sha256(Buffer.from('another'))) }, 'a signature is of none of the keys'],
    [signed('p256', payload(name, sha256(Buffer.from('another')))), /^a signature is for "sha256:/],
    [signed('p256', payload(`${name}-2`)), `a signature is for "${name}-2"`],
    [signed('p256', payload(`${name}:v2`)), `a signature is for "${name}:v2"`],
    [signed('p256', payload('Not A Name')), 'a signature is for "Not A Name"'],
    [signed('p256', payload(name, undefined, 'atomic container signature')), /something else than an image/],
    [signed('p256', Buffer.from('{}')), /something else than an image/],
    [signed('p256', Buffer.alloc(100_000, ' ')), /has 100000 bytes, more than 65536/],
  ];
  for (const [signature, expected] of cases) {
    await attach(repository, [signature]);
    expect(await refusal(ref, {})).toMatch(expected);
  }
});
