import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Progress } from '../../src/image/assemble.ts';
import {
  type BuiltImage,
  buildImage,
  hostArchitecture,
  type ImageFixture,
  imageFixture,
  layer,
} from '../support/images.ts';
import {
  BASIC_USER,
  fakeRegistry,
  type Registry,
  startFakeRegistry,
  startRegistry,
} from '../support/registry.ts';

let fixture: ImageFixture;

beforeEach(() => {
  fixture = imageFixture();
});

afterEach(() => fixture.close());

/** An image of three layers, each compressed in another way. */
async function threeLayers(): Promise<BuiltImage> {
  return buildImage([
    await layer([{ name: 'plain', content: 'p' }]),
    await layer([{ name: 'gzip', content: 'g' }], { with: gzipSync, suffix: 'gzip' }),
    await layer([{ name: 'zstd', content: 'z' }], { with: zstdCompressSync, suffix: 'zstd' }),
  ]);
}

async function small(content = 'x', size = 100): Promise<BuiltImage> {
  return buildImage([await layer([{ name: 'file', content: content.repeat(size) }])]);
}

/** The digest of the first layer of `small`. */
function layerDigest(image: BuiltImage): string {
  const { digest } = image.manifest;
  return [...image.blobs.keys()].find((key) => key !== image.id && key !== digest) ?? '';
}

async function expectNothingLeft(): Promise<void> {
  await expect.poll(() => fixture.leftovers()).toEqual([]);
  expect(fixture.images.list()).toEqual([]);
}

describe('from a real registry', () => {
  let registry: Registry;

  beforeAll(async () => {
    registry = await startRegistry();
  });

  afterAll(() => registry.stop());

  it('pulls plain, gzip and zstd layers, with progress of each', async () => {
    const built = await threeLayers();
    await registry.push('team/app', 'v1', built);
    const progress: Progress[] = [];
    const image = await fixture.images.pull(`${registry.host}/team/app:v1`, undefined, {
      onProgress: (p) => progress.push(p),
    });
    expect(image).toMatchObject({
      id: built.id,
      repoTags: [`${registry.host}/team/app:v1`],
      repoDigests: [`${registry.host}/team/app@${built.manifest.digest}`],
    });
    const files = ['zstd', 'gzip', 'plain'];
    for (const [i, dir] of fixture.images.lowerdirs(image).entries()) {
      expect(readFileSync(join(dir, files[i] ?? ''), 'utf8')).toBe(files[i]?.[0]);
    }
    expect(progress.filter((p) => p.phase === 'done')).toHaveLength(3);
    expect(fixture.images.fsInfo().usedBytes).toBeGreaterThan(image.size);
    expect(fixture.images.get(image.repoDigests[0] ?? '')?.id).toBe(built.id);
  });

  it('takes from an index what runs here, and names the index digest', async () => {
    const built = await small();
    await registry.push('team/multi', 'here', built);
    const other = await small('y');
    await registry.push('team/multi', 'there', other);
    const body = JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [
        { ...other.manifest, platform: { os: 'linux', architecture: 's390x' } },
        { ...built.manifest, platform: { os: 'linux', architecture: hostArchitecture() } },
      ],
    });
    await registry.putManifest('team/multi', 'latest', body, 'application/vnd.oci.image.index.v1+json');
    const image = await fixture.images.pull(`${registry.host}/team/multi`);
    expect(image.id).toBe(built.id);
    expect(image.repoDigests[0]).not.toContain(built.manifest.digest);
    const again = await fixture.images.pull(image.repoDigests[0] ?? '');
    expect(again).toEqual(image);
  });

  it('moves a tag to the new image, and keeps the old one by its digest', async () => {
    const [old, fresh] = [await small('old'), await small('new')];
    await registry.push('team/moving', 'v1', old);
    await fixture.images.pull(`${registry.host}/team/moving:v1`);
    await registry.push('team/moving', 'v1', fresh);
    const image = await fixture.images.pull(`${registry.host}/team/moving:v1`);
    expect(image.id).toBe(fresh.id);
    expect(fixture.images.get(old.id)).toMatchObject({ repoTags: [] });
    expect(fixture.images.get(old.id)?.repoDigests).toHaveLength(1);
  });

  it('says notFound for what is not there', async () => {
    const pulling = fixture.images.pull(`${registry.host}/team/absent:v1`);
    await expect(pulling).rejects.toMatchObject({
      kind: 'notFound',
      message: expect.stringContaining(registry.host),
    });
    await expectNothingLeft();
  });
});

describe('credentials', () => {
  it('open a registry with basic authentication, and only the right ones', async () => {
    const registry = await startRegistry({ basic: true });
    try {
      const built = await small();
      await registry.push('private/app', 'v1', built);
      const ref = `${registry.host}/private/app:v1`;
      const auth = Buffer.from('user:pass').toString('base64');
      const { images } = fixture;
      await expect(images.pull(ref)).rejects.toMatchObject({ kind: 'permission' });
      await expect(images.pull(ref, { username: 'user', password: 'no' })).rejects.toMatchObject({
        kind: 'permission',
      });
      await expect(
        images.pull(ref, { ...BASIC_USER, serverAddress: 'https://other.example' }),
      ).rejects.toMatchObject({ kind: 'permission' });
      await expectNothingLeft();
      expect((await images.pull(ref, BASIC_USER)).id).toBe(built.id);
      expect((await images.pull(ref, { auth, serverAddress: registry.host })).id).toBe(built.id);
      // What is here already is no reason to let others have it.
      await expect(
        images.pull(`${registry.host}/private/app@${built.manifest.digest}`),
      ).rejects.toMatchObject({
        kind: 'permission',
      });
    } finally {
      await registry.stop();
    }
  });

  it('get a token from the service that the registry names', async () => {
    const tokens = await fakeRegistry((request, response) => {
      const url = new URL(request.url ?? '', 'http://x');
      const isRight =
        request.headers.authorization === `Basic ${Buffer.from('user:pass').toString('base64')}`;
      if (url.searchParams.get('scope') !== 'repository:app:pull' || !isRight) response.writeHead(401).end();
      else response.end(JSON.stringify({ access_token: 'the-token' }));
      return true;
    });
    const registry = await fakeRegistry((request, response) => {
      if (request.headers.authorization === 'Bearer the-token') return false;
      const challenge = `Bearer realm="http://${tokens.host}/token",service="s",scope="repository:app:pull"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return true;
    });
    const built = await small();
    registry.add('app', 'v1', built);
    const ref = `${registry.host}/app:v1`;
    await expect(fixture.images.pull(ref)).rejects.toMatchObject({ kind: 'permission' });
    expect((await fixture.images.pull(ref, BASIC_USER)).id).toBe(built.id);
    // One token serves all requests of the pull.
    expect(tokens.requests.filter((r) => r.headers.authorization !== undefined)).toHaveLength(1);
    expect((await fixture.images.pull(ref, { registryToken: 'the-token' })).id).toBe(built.id);
  });

  it('may be an identity token, which only the service for tokens gets', async () => {
    const forms: string[] = [];
    const tokens = await fakeRegistry((request, response) => {
      let form = '';
      request.on('data', (data: Buffer) => (form += String(data)));
      request.on('end', () => {
        forms.push(`${request.method} ${form}`);
        const isRight = new URLSearchParams(form).get('refresh_token') === 'identity';
        response.writeHead(isRight ? 200 : 401).end(JSON.stringify({ access_token: 'the-token' }));
      });
      return true;
    });
    const registry = await fakeRegistry((request, response) => {
      if (request.headers.authorization === 'Bearer the-token') return false;
      const challenge = `Bearer realm="http://${tokens.host}/token",service="s"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return true;
    });
    const built = await small();
    registry.add('app', 'v1', built);
    const ref = `${registry.host}/app:v1`;
    expect((await fixture.images.pull(ref, { identityToken: 'identity' })).id).toBe(built.id);
    const scope = 'service=s&scope=repository%3Aapp%3Apull';
    expect(forms).toEqual([`POST ${scope}&grant_type=refresh_token&client_id=berth&refresh_token=identity`]);
    const wrong = fixture.images.pull(ref, { identityToken: 'wrong' });
    await expect(wrong).rejects.toMatchObject({ kind: 'permission', message: /status 401/ });
    expect(registry.requests.some(({ headers }) => headers.authorization?.includes('identity'))).toBe(false);
  });

  it('are not sent along when a blob is redirected elsewhere', async () => {
    const store = await fakeRegistry();
    const registry = await fakeRegistry((request, response) => {
      if (request.headers.authorization === undefined) {
        response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
        return true;
      }
      if (!request.url?.includes('/blobs/')) return false;
      response.writeHead(307, { location: `http://${store.host}${request.url}` }).end();
      return true;
    });
    const built = await small();
    registry.add('app', 'v1', built);
    store.add('app', 'v1', built);
    fixture.hosts(
      registry.host,
      `[host."http://${registry.host}"]\n[host."http://${registry.host}".header]\nx-secret = "s"`,
    );
    expect((await fixture.images.pull(`${registry.host}/app:v1`, BASIC_USER)).id).toBe(built.id);
    expect(store.requests).toHaveLength(2);
    for (const { headers } of store.requests) {
      expect(headers).not.toHaveProperty('authorization');
      expect(headers).not.toHaveProperty('x-secret');
    }
    expect(registry.requests[0]?.headers).toHaveProperty('x-secret', 's');
  });

  it('follow no endless redirects', async () => {
    const registry = await fakeRegistry((request, response) => {
      if (!request.url?.includes('/blobs/')) return false;
      response.writeHead(307, { location: request.url }).end();
      return true;
    });
    registry.add('app', 'v1', await small());
    await expect(fixture.images.pull(`${registry.host}/app:v1`)).rejects.toThrow(
      /^RegistryUnavailable: .*redirects/,
    );
    await fixture.images.collect();
    await expectNothingLeft();
  });
});

describe('mirrors', () => {
  it('are asked in order, a dead one is passed over, and a change needs no restart', async () => {
    const [first, second] = [await fakeRegistry(), await fakeRegistry()];
    const built = await small();
    second.add('team/app', 'v1', built);
    const dead = await startFakeRegistry();
    await dead.stop();
    const toml = [dead, first, second].map(
      (m) => `[host."http://${m.host}"]\ncapabilities = ["pull", "resolve"]\n`,
    );
    fixture.hosts('registry.invalid', `server = "https://registry.invalid"\n${toml.join('')}`);
    expect((await fixture.images.pull('registry.invalid/team/app:v1')).repoTags).toEqual([
      'registry.invalid/team/app:v1',
    ]);
    expect(first.requests.length).toBeGreaterThan(0);
    expect(second.requests[0]?.line).toBe('HEAD /v2/team/app/manifests/v1?ns=registry.invalid');
    const before = second.requests.length;
    first.add('team/app', 'v1', built);
    fixture.hosts('registry.invalid', toml[1] ?? '');
    await fixture.images.pull('registry.invalid/team/app:v1');
    expect(second.requests).toHaveLength(before);
  });

  it('that may only pull are not asked what a tag means', async () => {
    const [mirror, registry] = [await fakeRegistry(), await fakeRegistry()];
    const built = await small();
    mirror.add('app', 'v1', built);
    registry.add('app', 'v1', built);
    fixture.hosts(registry.host, `[host."http://${mirror.host}"]\ncapabilities = ["pull"]\n`);
    await fixture.images.pull(`${registry.host}/app:v1`);
    expect(mirror.requests.some((r) => r.line.includes('/manifests/v1'))).toBe(false);
    expect(registry.requests.some((r) => r.line.includes('/blobs/'))).toBe(false);
  });

  it('all dead is RegistryUnavailable', async () => {
    const dead = await startFakeRegistry();
    await dead.stop();
    await expect(fixture.images.pull(`${dead.host}/app:v1`)).rejects.toMatchObject({
      kind: 'registryUnavailable',
      message: expect.stringMatching(/^RegistryUnavailable: 127\.0\.0\.1:\d+: .*ECONNREFUSED/),
    });
  });

  it('that answer 5xx are unavailable, too, and a wrong hosts.toml is named', async () => {
    const registry = await fakeRegistry((_, response) => {
      response.writeHead(503).end();
      return true;
    });
    const ref = `${registry.host}/app:v1`;
    await expect(fixture.images.pull(ref)).rejects.toThrow(/^RegistryUnavailable: .*status 503/);
    fixture.hosts(registry.host, 'capabilities = ["pul"]');
    await expect(fixture.images.pull(ref)).rejects.toMatchObject({
      kind: 'precondition',
      message: expect.stringMatching(/hosts\.toml: capabilities\.0/),
    });
  });
});

describe('content that is not what it claims', () => {
  it('is refused: a corrupted blob', async () => {
    const registry = await fakeRegistry();
    const built = await small();
    registry.add('app', 'v1', built);
    const path = `app/blobs/${layerDigest(built)}`;
    const body = Buffer.from(registry.documents.get(path)?.body ?? '').fill('!', 600, 610);
    registry.documents.set(path, { body, mediaType: '' });
    await expect(fixture.images.pull(`${registry.host}/app:v1`)).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining('arrived with the digest'),
    });
    await expectNothingLeft();
  });

  it('is refused: a manifest with another digest, an artifact, schema 1, one that is too large', async () => {
    const registry = await fakeRegistry();
    const built = await small();
    registry.add('app', 'v1', built);
    const put = (tag: string, body: object | Buffer, mediaType = 'application/json') =>
      registry.documents.set(`app/manifests/${tag}`, {
        body: Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body)),
        mediaType,
      });
    const asked = `sha256:${'0'.repeat(64)}`;
    put(asked, {});
    put('schema1', { schemaVersion: 1 });
    const config = { mediaType: 'application/vnd.cncf.helm.config.v1+json', digest: asked, size: 2 };
    put('chart', { schemaVersion: 2, config, layers: [] });
    put('large', Buffer.alloc(5 * 1024 * 1024, ' '));
    const pull = (ref: string) => fixture.images.pull(`${registry.host}/app${ref}`);
    await expect(pull(`@${asked}`)).rejects.toThrow(/arrived with the digest/);
    await expect(pull(':schema1')).rejects.toThrow(/schema 1/);
    await expect(pull(':chart')).rejects.toThrow(/artifact of type .*helm/);
    await expect(pull(':large')).rejects.toThrow(/more than 4194304 bytes/);
    await expectNothingLeft();
  });
});

describe('connections', () => {
  it('that break are taken up again where they stopped', async () => {
    let broken = false;
    const built = await small('x', 500_000);
    const digest = layerDigest(built);
    const registry = await fakeRegistry((request, response) => {
      if (!request.url?.includes(digest) || broken) return false;
      broken = true;
      const body = built.blobs.get(digest) ?? Buffer.alloc(0);
      response.writeHead(200, { 'content-length': body.length });
      response.write(body.subarray(0, 200_000), () => response.destroy());
      return true;
    });
    registry.add('app', 'v1', built);
    expect((await fixture.images.pull(`${registry.host}/app:v1`)).id).toBe(built.id);
    const ranges = registry.requests.flatMap(({ headers }) => headers.range ?? []);
    expect(ranges).toEqual([expect.stringMatching(/^bytes=\d+-$/)]);
  });

  it('that fail a pull do not cost what was complete, if it is soon tried again', async () => {
    const built = buildImage([
      await layer([{ name: 'one', content: '1' }]),
      await layer([{ name: 'two', content: '2'.repeat(100_000) }]),
    ]);
    const { layers } = JSON.parse(String(built.blobs.get(built.manifest.digest)));
    const [first, second]: string[] = layers.map(({ digest }: { digest: string }) => digest);
    let isDown = true;
    const registry = await fakeRegistry((request, response) => {
      if (!isDown || !request.url?.includes(second ?? '')) return false;
      void vi
        .waitFor(() => expect(fixture.db.all('SELECT * FROM layers')).toHaveLength(1), 10_000)
        .then(() => {
          response.writeHead(502).end();
        });
      return true;
    });
    registry.add('app', 'v1', built);
    await expect(fixture.images.pull(`${registry.host}/app:v1`)).rejects.toThrow(/^RegistryUnavailable.*502/);
    expect(fixture.images.list()).toEqual([]);
    isDown = false;
    expect((await fixture.images.pull(`${registry.host}/app:v1`)).id).toBe(built.id);
    expect(registry.requests.filter((r) => r.line.includes(first ?? ''))).toHaveLength(1);
  });

  it('that stay broken fail the pull and leave nothing', async () => {
    const built = await small('x', 500_000);
    const digest = layerDigest(built);
    const registry = await fakeRegistry((request, response) => {
      if (!request.url?.includes(digest)) return false;
      response.writeHead(200, { 'content-length': built.blobs.get(digest)?.length });
      response.write('short', () => response.destroy());
      return true;
    });
    registry.add('app', 'v1', built);
    await expect(fixture.images.pull(`${registry.host}/app:v1`)).rejects.toThrow(/^RegistryUnavailable/);
    await fixture.images.collect();
    await expectNothingLeft();
  });
});

describe('the same image wanted twice', () => {
  it('is pulled once, and goes on when one of the two leaves', async () => {
    const { promise: asked, resolve: onAsked } = Promise.withResolvers<void>();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const built = await small();
    const digest = layerDigest(built);
    const registry = await fakeRegistry((request, response) => {
      if (!request.url?.includes(digest)) return false;
      onAsked();
      void released.then(() => response.end(built.blobs.get(digest)));
      return true;
    });
    registry.add('app', 'v1', built);
    const ref = `${registry.host}/app:v1`;
    const leaving = new AbortController();
    const first = fixture.images.pull(ref, undefined, { signal: leaving.signal });
    const second = fixture.images.pull(ref);
    await asked;
    // In the middle of a pull, its blobs are no garbage.
    await fixture.images.collect();
    leaving.abort();
    await expect(first).rejects.toThrow();
    release();
    expect((await second).id).toBe(built.id);
    expect(registry.requests.filter((r) => r.line.includes(digest))).toHaveLength(1);
  });

  it('ends when both leave', async () => {
    const { promise: asked, resolve: onAsked } = Promise.withResolvers<void>();
    const registry = await fakeRegistry((request) => {
      if (!request.url?.includes('/blobs/')) return false;
      onAsked();
      return true;
    });
    registry.add('app', 'v1', await small());
    const leaving = new AbortController();
    const pulls = [1, 2].map(() =>
      fixture.images.pull(`${registry.host}/app:v1`, undefined, { signal: leaving.signal }),
    );
    await asked;
    leaving.abort();
    for (const result of await Promise.allSettled(pulls)) expect(result.status).toBe('rejected');
    await expectNothingLeft();
  });
});
