import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isLoopback, loadHosts } from '../../../src/image/registry/hosts.ts';

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'berth-hosts-'));
});

afterEach(() => rmSync(dir, { recursive: true }));

function put(folder: string, name: string, text: string): void {
  mkdirSync(join(dir, folder), { recursive: true });
  writeFileSync(join(dir, folder, name), text);
}

async function urls(host: string): Promise<string[]> {
  return (await loadHosts(dir, host)).map(({ url }) => url.href);
}

describe('loadHosts', () => {
  it.each([
    ['docker.io', 'https://registry-1.docker.io/v2'],
    ['registry.example', 'https://registry.example/v2'],
    ['registry.example:5000', 'https://registry.example:5000/v2'],
    ['localhost:5000', 'http://localhost:5000/v2'],
    ['127.0.0.2:5000', 'http://127.0.0.2:5000/v2'],
    ['[::1]:5000', 'http://[::1]:5000/v2'],
    ['localhost', 'https://localhost/v2'],
    ['localhost:443', 'https://localhost/v2'],
    ['localhost.example:80', 'https://localhost.example:80/v2'],
    ['127.example:5000', 'https://127.example:5000/v2'],
  ])('without a file, %s is %s', async (host, url) => {
    expect(await urls(host)).toEqual([url]);
  });

  it('keeps the order of mirrors, and the server last', async () => {
    put(
      'registry.example',
      'hosts.toml',
      `server = "https://origin.example"
       [host."https://z.example"]
         capabilities = ["pull", "Resolve"]
         dial_timeout = "1.5s"
       [host."http://a.example:8080/sub"]
         skip_verify = true
       [host."b.example/api"]
         override_path = true
         [host."b.example/api".header]
           x-one = "1"
           x-two = ["2", "3"]`,
    );
    const hosts = await loadHosts(dir, 'registry.example');
    expect(hosts.map(({ url }) => url.href)).toEqual([
      'https://z.example/v2',
      'http://a.example:8080/sub/v2',
      'https://b.example/api',
      'https://origin.example/v2',
    ]);
    expect(hosts.map(({ isMirror }) => isMirror)).toEqual([true, true, true, false]);
    expect([...(hosts[0]?.capabilities ?? [])]).toEqual(['pull', 'resolve']);
    expect(hosts[0]?.dialTimeoutMs).toBe(1500);
    expect(hosts[1]?.tls.skipVerify).toBe(true);
    expect(hosts[2]?.headers).toEqual({ 'x-one': '1', 'x-two': ['2', '3'] });
    expect([...(hosts[3]?.capabilities ?? [])]).toEqual(['pull', 'resolve', 'push']);
  });

  it('falls back on the registry itself, and on _default', async () => {
    put('_default', 'hosts.toml', '[host."https://cache.example"]');
    expect(await urls('registry.example')).toEqual([
      'https://cache.example/v2',
      'https://registry.example/v2',
    ]);
    put('registry.example', 'hosts.toml', '');
    expect(await urls('registry.example')).toEqual(['https://registry.example/v2']);
  });

  it('prefers the folder with the port', async () => {
    put('registry.example', 'hosts.toml', 'server = "https://without.example"');
    put('registry.example_5000_', 'hosts.toml', 'server = "https://with.example"');
    expect(await urls('registry.example:5000')).toEqual(['https://with.example/v2']);
  });

  it('reads certificates relative to the file, in each of their forms', async () => {
    const pem = (name: string): string => `-----BEGIN ${name}-----\n`;
    for (const name of ['ca.pem', 'cert.pem', 'key.pem']) put('registry.example', name, pem(name));
    put(
      'registry.example',
      'hosts.toml',
      'ca = ["ca.pem"]\nclient = [["cert.pem", "key.pem"]]\n[host."https://m.example"]\nclient = "cert.pem"',
    );
    const [mirror, own] = await loadHosts(dir, 'registry.example');
    expect(own?.tls).toEqual({
      ca: [pem('ca.pem')],
      client: { certs: [pem('cert.pem')], keys: [pem('key.pem')] },
    });
    expect(mirror?.tls).toEqual({ client: { certs: [pem('cert.pem')], keys: [pem('cert.pem')] } });
  });

  it("takes Docker's certificate files without a hosts.toml", async () => {
    put('registry.example', 'ca.crt', '-----BEGIN A');
    put('registry.example', 'c.cert', '-----BEGIN B');
    put('registry.example', 'c.key', '-----BEGIN C');
    const [host] = await loadHosts(dir, 'registry.example');
    expect(host?.tls).toEqual({
      ca: ['-----BEGIN A'],
      client: { certs: ['-----BEGIN B'], keys: ['-----BEGIN C'] },
    });
  });

  it.each([
    ['server = 1', /hosts\.toml: server/],
    ['[host', /hosts\.toml: /],
    ['capabilities = ["steal"]', /hosts\.toml: capabilities\.0/],
    ['[host."ftp://x"]', /"ftp:\/\/x" is no/],
    ['server = "https://user:pass@x.example"', /may not contain credentials/],
    ['dial_timeout = "soon"', /is no duration/],
    ['[host."https://m.example".rewrite]\n"(" = "x"', /rewrite: .*regular expression/],
    ['ca = "absent.pem"', /absent\.pem: is missing/],
  ])('refuses %j and names the file', async (text, message) => {
    put('registry.example', 'hosts.toml', text);
    await expect(loadHosts(dir, 'registry.example')).rejects.toMatchObject({
      kind: 'precondition',
      message: expect.stringMatching(message),
    });
  });
});

it.each([
  ['localhost', true],
  ['localhost:5000', true],
  ['127.9.9.9', true],
  ['[::1]:80', true],
  ['128.0.0.1', false],
  ['127.0.0.1.example', false],
  ['localhost.example', false],
])('isLoopback(%s) is %s', (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});
