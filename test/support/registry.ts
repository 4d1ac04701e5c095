import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import type { BuiltImage } from './images.ts';

/** Debian's docker-registry on a free loopback port. */
export interface Registry {
  /** `127.0.0.1:<port>` */
  host: string;
  /** Where its content is, for another registry to serve the same. */
  storage: string;
  /** Stores an image's blobs and its manifest under a tag. */
  push(repository: string, tag: string, image: BuiltImage): Promise<void>;
  /** Stores any manifest or index under a tag or digest. */
  putManifest(repository: string, tag: string, body: string | Buffer, mediaType: string): Promise<void>;
  stop(): Promise<void>;
}

/** Whom a `basic` registry lets in; below, as htpasswd writes it, with bcrypt at its lowest cost. */
export const BASIC_USER = { username: 'user', password: 'pass' };
const HTPASSWD = 'user:$2y$05$abcdefghijklmnopqrstuuZFBUbfXoM8LFiPx8LYlO/sXZB/Cwk3K\n';

export interface RegistryOptions {
  /** It wants BASIC_USER. */
  basic?: boolean;
  /** Files for https; with `clientCa` it wants a certificate of the client. Such a one takes no pushes from here. */
  tls?: { cert: string; key: string; clientCa?: string };
  /** Of another registry. */
  storage?: string;
  /** File of the network namespace whose loopback address it is to have. */
  netns?: string;
}

/** Starts a registry. */
export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const dir = mkdtempSync(join(tmpdir(), 'berth-registry-'));
  writeFileSync(join(dir, 'htpasswd'), HTPASSWD);
  const storage = options.storage ?? join(dir, 'data');
  const config = {
    version: '0.1',
    log: { level: 'info' },
    storage: { filesystem: { rootdirectory: storage } },
    http: { addr: '127.0.0.1:0', ...(options.tls === undefined ? {} : { tls: tlsConfig(options.tls) }) },
    ...(options.basic ? { auth: { htpasswd: { realm: 'test', path: join(dir, 'htpasswd') } } } : {}),
  };
  writeFileSync(join(dir, 'config.yml'), JSON.stringify(config));
  const command = ['docker-registry', 'serve', join(dir, 'config.yml')];
  const [program = '', ...args] =
    options.netns === undefined ? command : ['nsenter', `--net=${options.netns}`, ...command];
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const host = await listening(child);
  const headers = options.basic
    ? { authorization: `Basic ${Buffer.from('user:pass').toString('base64')}` }
    : ({} as Record<string, string>);
  const call = async (method: string, url: string, body?: Buffer | string, mediaType?: string) => {
    const type = mediaType ?? 'application/octet-stream';
    const response = await fetch(url, {
      method,
      headers: { ...headers, 'content-type': type },
      ...(body === undefined ? {} : { body: new Uint8Array(Buffer.from(body)) }),
    });
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`);
    return response;
  };
  const root = `http://${host}/v2`;
  const putManifest = async (repository: string, tag: string, body: Buffer | string, mediaType: string) => {
    await call('PUT', `${root}/${repository}/manifests/${tag}`, body, mediaType);
  };
  return {
    host,
    storage,
    putManifest,
    push: async (repository, tag, image) => {
      for (const [digest, bytes] of image.blobs) {
        if (digest === image.manifest.digest) continue;
        const upload = await call('POST', `${root}/${repository}/blobs/uploads/`);
        const location = new URL(upload.headers.get('location') ?? '', root);
        location.searchParams.set('digest', digest);
        await call('PUT', location.href, bytes);
      }
      const manifest = image.blobs.get(image.manifest.digest);
      await putManifest(repository, tag, manifest ?? '', image.manifest.mediaType);
    },
    stop: async () => {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

function tlsConfig({ cert, key, clientCa }: NonNullable<RegistryOptions['tls']>): object {
  return { certificate: cert, key, ...(clientCa === undefined ? {} : { clientcas: [clientCa] }) };
}

/** Its log names the port that it got. */
function listening(child: ChildProcess): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let log = '';
  child.on('error', reject);
  child.on('exit', (code) => reject(new Error(`docker-registry ended (${code}): ${log}`)));
  if (child.stderr === null) throw new Error('no stderr');
  createInterface({ input: child.stderr }).on('line', (line) => {
    log += `${line}\n`;
    const address = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
    if (address !== undefined) resolve(address);
  });
  return promise;
}

/** A registry in memory that a test can make misbehave. */
export interface FakeRegistry {
  host: string;
  /** Requests so far, as `METHOD path`. */
  requests: { line: string; headers: IncomingMessage['headers'] }[];
  /** Path below `/v2/` → body; tags of manifests as well as blobs. */
  documents: Map<string, { body: Buffer; mediaType: string }>;
  add(repository: string, tag: string, image: BuiltImage): void;
  stop(): Promise<void>;
}

/** `intercept` answers a request itself by returning true. */
export async function startFakeRegistry(
  intercept: (request: IncomingMessage, response: ServerResponse) => boolean = () => false,
): Promise<FakeRegistry> {
  const documents: FakeRegistry['documents'] = new Map();
  const requests: FakeRegistry['requests'] = [];
  const server = createServer((request, response) => {
    requests.push({ line: `${request.method} ${request.url}`, headers: request.headers });
    if (intercept(request, response)) return;
    const path = new URL(request.url ?? '', 'http://x').pathname.slice('/v2/'.length);
    const document = documents.get(path);
    if (document === undefined) {
      response.writeHead(404).end();
      return;
    }
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const body = document.body.subarray(start);
    response.writeHead(start > 0 ? 206 : 200, {
      'content-type': document.mediaType,
      'content-length': body.length,
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    documents,
    add: (repository, tag, image) => {
      for (const [digest, body] of image.blobs) {
        documents.set(`${repository}/blobs/${digest}`, { body, mediaType: 'application/octet-stream' });
      }
      const body = image.blobs.get(image.manifest.digest) ?? Buffer.alloc(0);
      for (const name of [tag, image.manifest.digest]) {
        documents.set(`${repository}/manifests/${name}`, { body, mediaType: image.manifest.mediaType });
      }
    },
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** A fake registry for one test, at whose end it stops. */
export async function fakeRegistry(...args: Parameters<typeof startFakeRegistry>): Promise<FakeRegistry> {
  const registry = await startFakeRegistry(...args);
  onTestFinished(() => registry.stop());
  return registry;
}
