import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CLOCKS } from '../../src/image/registry/http.ts';
import { type Authority, makeAuthority } from '../support/certificates.ts';
import { type BuiltImage, buildImage, type ImageFixture, imageFixture, layer } from '../support/images.ts';
import { type FakeRegistry, fakeRegistry, type Registry, startRegistry } from '../support/registry.ts';

let fixture: ImageFixture;

beforeEach(() => {
  fixture = imageFixture({
    clocks: { ...CLOCKS, maxRetryAfter: 2000, retry: 10 },
  });
});

afterEach(() => fixture.close());

async function imageOf(...files: string[]): Promise<BuiltImage> {
  return buildImage(await Promise.all(files.map((name) => layer([{ name, content: name }]))));
}

/** Digests of an image's layers, base first. */
function layerDigests(image: BuiltImage): string[] {
  const manifest = JSON.parse(String(image.blobs.get(image.manifest.digest)));
  return manifest.layers.map(({ digest }: { digest: string }) => digest);
}

async function expectNothingLeft(): Promise<void> {
  await expect.poll(() => fixture.leftovers()).toEqual([]);
}

describe('a registry that is busy', () => {
  it.each([429, 503])('is asked again when its answer %d says when', async (status) => {
    const refused = new Set<string>();
    const registry = await fakeRegistry(({ url = '', method }, response) => {
      if (refused.has(`${method} ${url}`)) return false;
      refused.add(`${method} ${url}`);
      response.writeHead(status, { 'retry-after': '0' }).end();
      return true;
    });
    const built = await imageOf('a');
    registry.add('app', 'v1', built);
    expect((await fixture.images.pull(`${registry.host}/app:v1`)).id).toBe(built.id);
    expect(refused.size).toBeGreaterThan(2);
  });

  it('for longer than is waited for, or always, is RegistryUnavailable', async () => {
    let after = '86400';
    const registry = await fakeRegistry((_, response) => {
      response.writeHead(429, { 'retry-after': after }).end();
      return true;
    });
    const ref = `${registry.host}/app:v1`;
    await expect(fixture.images.pull(ref)).rejects.toThrow(/^RegistryUnavailable: .*429: too many requests/);
    expect(registry.requests).toHaveLength(1);
    after = '0';
    await expect(fixture.images.pull(ref)).rejects.toThrow(/^RegistryUnavailable: /);
    expect(registry.requests).toHaveLength(1 + 4);
  });
});

describe('a layer whose bytes', () => {
  const stalling = async (trickle: boolean): Promise<{ registry: FakeRegistry; built: BuiltImage }> => {
    const built = buildImage([await layer([{ name: 'f', content: 'x'.repeat(500_000) }])]);
    const [digest = ''] = layerDigests(built);
    const registry = await fakeRegistry((request, response) => {
      if (!request.url?.includes(digest)) return false;
      response.writeHead(200, { 'content-length': built.blobs.get(digest)?.length });
      response.write(Buffer.alloc(1000));
      const timer = trickle ? setInterval(() => response.write('x'), 100) : undefined;
      response.on('close', () => clearInterval(timer));
      return true;
    });
    registry.add('app', 'v1', built);
    return { registry, built };
  };

  it.each([
    ['stop coming', false, /no bytes in time/],
    ['only trickle', true, /too slowly/],
  ])('%s is given up, whatever is unpacked meanwhile', async (_, trickle, message) => {
    const { registry } = await stalling(trickle);
    await fixture.close();
    fixture = imageFixture({ clocks: { ...CLOCKS, idle: trickle ? 10_000 : 300, window: 600, retry: 10 } });
    await expect(fixture.images.pull(`${registry.host}/app:v1`)).rejects.toThrow(message);
    await fixture.images.collect();
    await expectNothingLeft();
  });
});

describe('several pulls', () => {
  it.each([
    { pulls: 3, registries: 1, bound: 6 },
    { pulls: 6, registries: 3, bound: 12 },
  ])('share a bound: $pulls, registries: $registries, blobs at once: $bound', async (given) => {
    const { registries, bound } = given;
    const held: (() => void)[] = [];
    const layersOf = new Map<string, Buffer>();
    let most = 0;
    const all: FakeRegistry[] = [];
    for (let i = 0; i < registries; i++) {
      const registry = await fakeRegistry((request, response) => {
        const digest = request.url?.split('/blobs/')[1] ?? '';
        if (!layersOf.has(digest)) return false;
        held.push(() => response.end(layersOf.get(digest)));
        most = Math.max(most, held.length);
        return true;
      });
      all.push(registry);
    }
    // Each may have three blobs at once, which is more than the bound in all.
    const images = await Promise.all(
      Array.from({ length: given.pulls }, (_, i) => imageOf(...[1, 2, 3, 4].map((layer) => `${i}-${layer}`))),
    );
    const pulls = images.map((image, i) => {
      const registry = all[i % registries];
      registry?.add(`app${i}`, 'v1', image);
      for (const digest of layerDigests(image))
        layersOf.set(digest, image.blobs.get(digest) ?? Buffer.alloc(0));
      return fixture.images.pull(`${registry?.host}/app${i}:v1`);
    });
    await expect.poll(() => held.length).toBe(bound);
    for (let answered = 0; answered < layersOf.size; ) {
      await expect.poll(() => held.length).toBeGreaterThan(0);
      for (const answer of held.splice(0)) {
        answer();
        answered += 1;
      }
    }
    expect(most).toBe(bound);
    expect((await Promise.all(pulls)).map(({ id }) => id)).toEqual(images.map(({ id }) => id));
  });

  it('go on by themselves when the one fails whose download they had joined', async () => {
    const shared = await layer([{ name: 'shared', content: 'x'.repeat(200_000) }]);
    const [one, two] = [
      buildImage([shared, await layer([{ name: 'one', content: '1' }])]),
      buildImage([shared, await layer([{ name: 'two', content: '2' }])]),
    ];
    const [digest = ''] = layerDigests(one);
    const { promise: asked, resolve: onAsked } = Promise.withResolvers<void>();
    const { promise: broken, resolve: breakOff } = Promise.withResolvers<void>();
    const bad = await fakeRegistry((request, response) => {
      if (!request.url?.includes(digest)) return false;
      response.writeHead(200, { 'content-length': one.blobs.get(digest)?.length });
      response.write(one.blobs.get(digest)?.subarray(0, 100_000), () => onAsked());
      void broken.then(() => response.destroy());
      return true;
    });
    const good = await fakeRegistry();
    bad.add('app', 'v1', one);
    good.add('app', 'v1', two);
    const first = fixture.images.pull(`${bad.host}/app:v1`);
    first.catch(() => {});
    await asked;
    const second = fixture.images.pull(`${good.host}/app:v1`);
    // Its other layer is there: so it has come to the shared one.
    await expect.poll(() => fixture.db.all('SELECT * FROM blobs').length).toBeGreaterThanOrEqual(6);
    expect(good.requests.filter((r) => r.line.includes(digest))).toEqual([]);
    breakOff();
    await expect(first).rejects.toThrow(/^RegistryUnavailable/);
    expect((await second).id).toBe(two.id);
    expect(fixture.images.list().map(({ id }) => id)).toEqual([two.id]);
  });
});

describe('a layer', () => {
  it('is unpacked while it is being downloaded, and counts only when its digest is right', async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const files = Array.from({ length: 50 }, (_, i) => ({ name: `f${i}`, content: `${i}`.repeat(40_000) }));
    const built = buildImage([await layer(files, { with: gzipSync, suffix: 'gzip' })]);
    const [digest = ''] = layerDigests(built);
    const body = Buffer.from(built.blobs.get(digest) ?? '');
    const damaged = Buffer.from(body);
    // The time in gzip's header changes nothing but the digest.
    damaged.fill(0x77, 4, 8);
    let answer = damaged;
    const registry = await fakeRegistry((request, response) => {
      if (!request.url?.includes(digest)) return false;
      response.writeHead(200, { 'content-length': answer.length });
      response.write(answer.subarray(0, -100));
      void released.then(() => response.end(answer.subarray(-100)));
      return true;
    });
    registry.add('app', 'v1', built);
    const pulling = fixture.images.pull(`${registry.host}/app:v1`);
    pulling.catch(() => {});
    const layers = join(fixture.root, 'layers');
    const unpacked = (): boolean =>
      readdirSync(layers).some((dir) => existsSync(join(layers, dir, 'fs', 'f10')));
    await expect.poll(unpacked).toBe(true);
    expect(fixture.db.all('SELECT * FROM layers')).toEqual([]);
    release();
    await expect(pulling).rejects.toThrow(/arrived with the digest/);
    await expectNothingLeft();
    answer = body;
    expect((await fixture.images.pull(`${registry.host}/app:v1`)).id).toBe(built.id);
  });
});

describe('TLS', () => {
  let authority: Authority;
  let registry: Registry;
  let secure: Registry;
  let built: BuiltImage;
  let client: { cert: string; key: string };

  beforeAll(async () => {
    authority = makeAuthority();
    client = authority.issue('client');
    registry = await startRegistry();
    built = await imageOf('a');
    await registry.push('team/app', 'v1', built);
    await registry.push('mirror/team/app', 'v1', built);
    const tls = { ...authority.issue('127.0.0.1', 'registry.test'), clientCa: authority.ca };
    secure = await startRegistry({ tls, storage: registry.storage });
  });

  afterAll(async () => {
    await secure.stop();
    await registry.stop();
    authority.close();
  });

  const pull = (ref = `${secure.host}/team/app:v1`): Promise<string> =>
    fixture.images.pull(ref).then(({ id }) => id);
  const withClient = (): string => `client = [["${client.cert}", "${client.key}"]]\n`;

  it('wants an authority and a certificate of its own from hosts.toml, which may change', async () => {
    fixture.hosts(secure.host, `server = "https://${secure.host}"\n`);
    await expect(pull()).rejects.toThrow(/^RegistryUnavailable: .*certificate/);
    fixture.hosts(secure.host, `server = "https://${secure.host}"\nca = "${authority.ca}"\n`);
    await expect(pull()).rejects.toThrow(/^RegistryUnavailable: /);
    fixture.hosts(secure.host, `server = "https://${secure.host}"\nca = "${authority.ca}"\n${withClient()}`);
    expect(await pull()).toBe(built.id);
  });

  it("may come from an authority of the system's", async () => {
    const saved = process.env.SSL_CERT_FILE;
    try {
      process.env.SSL_CERT_FILE = authority.ca;
      await fixture.close();
      fixture = imageFixture();
      fixture.hosts(secure.host, `server = "https://${secure.host}"\n${withClient()}`);
      expect(await pull()).toBe(built.id);
    } finally {
      process.env.SSL_CERT_FILE = saved;
    }
  });

  it('may go unverified, and a damaged certificate is named', async () => {
    fixture.hosts(secure.host, `server = "https://${secure.host}"\nskip_verify = true\n${withClient()}`);
    expect(await pull()).toBe(built.id);
    const dir = fixture.hosts(secure.host, `server = "https://${secure.host}"\nca = "bad.pem"\n`);
    writeFileSync(join(dir, 'bad.pem'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n');
    await expect(pull()).rejects.toMatchObject({
      kind: 'precondition',
      message: expect.stringMatching(/certificates/),
    });
  });

  it("takes Docker's files", async () => {
    const dir = join(fixture.hostsDir, 'registry.test:5000');
    mkdirSync(dir, { recursive: true });
    copyFileSync(authority.ca, join(dir, 'ca.crt'));
    copyFileSync(client.cert, join(dir, 'node.cert'));
    copyFileSync(client.key, join(dir, 'node.key'));
    // No such name: but the certificates are used, as the proxy's test shows.
    await expect(pull('registry.test:5000/team/app:v1')).rejects.toThrow(
      /^RegistryUnavailable: registry\.test:5000/,
    );
  });

  it('goes through the proxy of the environment, but not to what NO_PROXY names', async () => {
    const asked: string[] = [];
    const proxy = await startProxy(asked, Number(secure.host.split(':')[1]));
    const saved = { ...process.env };
    try {
      process.env.HTTPS_PROXY = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
      process.env.NO_PROXY = 'other.test';
      fixture.hosts(
        'registry.test',
        `server = "https://registry.test"\nca = "${authority.ca}"\n${withClient()}`,
      );
      expect(await pull('registry.test/team/app:v1')).toBe(built.id);
      expect(new Set(asked)).toEqual(new Set(['registry.test:443']));
      await expect(pull('other.test/team/app:v1')).rejects.toThrow(/^RegistryUnavailable: other\.test/);
      expect(new Set(asked)).toEqual(new Set(['registry.test:443']));
    } finally {
      process.env = saved;
      proxy.closeAllConnections();
      proxy.close();
    }
  });

  it('a mirror may have the image elsewhere', async () => {
    const tls = `ca = "${authority.ca}"\n${withClient()}`;
    fixture.hosts(
      'registry.invalid',
      `[host."https://${secure.host}"]\n${tls}[host."https://${secure.host}".rewrite]\n"^(team/.*)" = "mirror/$1"\n`,
    );
    expect(await pull('registry.invalid/team/app:v1')).toBe(built.id);
    expect(fixture.images.get('registry.invalid/team/app:v1')?.id).toBe(built.id);
    const api = `https://${secure.host}/v2/mirror`;
    fixture.hosts('registry.invalid', `[host."${api}"]\noverride_path = true\n${tls}`);
    expect(await pull('registry.invalid/team/app:v1')).toBe(built.id);
  });
});

/** A proxy that leads every CONNECT to one port of this machine. */
async function startProxy(asked: string[], port: number): Promise<Server> {
  const proxy = createServer();
  proxy.on('connect', (request, socket: Socket) => {
    asked.push(request.url ?? '');
    const upstream = connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      upstream.pipe(socket).pipe(upstream);
    });
    for (const end of [upstream, socket]) end.on('error', () => {});
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  return proxy;
}
