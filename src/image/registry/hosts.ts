import { readdir, readFile } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { join, resolve } from 'node:path';
import { parse } from 'smol-toml';
import { z } from 'zod';
import { BerthError, isErrno, messageOf } from '../../errors.ts';

/** What a host may be asked for. */
export type Capability = 'pull' | 'resolve' | 'push';

/** One server that may have an image. */
export interface RegistryHost {
  /** Root of the distribution API without a trailing slash, such as `https://registry-1.docker.io/v2`. */
  url: URL;
  capabilities: ReadonlySet<Capability>;
  tls: TlsOptions;
  headers: Readonly<Record<string, string | string[]>>;
  /** Milliseconds to connect. */
  dialTimeoutMs: number;
  /** A mirror is told, as `ns`, for which registry it is asked. */
  isMirror: boolean;
  /** Changes repositories' paths for this host: the first pattern that matches, and what takes its place. */
  rewrite: readonly [RegExp, string][];
}

/** PEM contents. */
export interface TlsOptions {
  ca?: string[];
  /** Certificates and their keys, pair by pair. */
  client?: { certs: string[]; keys: string[] };
  skipVerify?: boolean;
}

const DIAL_TIMEOUT_MS = 30_000;
const MAX_FILE_BYTES = 1024 * 1024;
const ALL: ReadonlySet<Capability> = new Set(['pull', 'resolve', 'push']);

const capability = z
  .string()
  .transform((v) => v.toLowerCase())
  .pipe(z.enum(['pull', 'resolve', 'push']));

// As containerd documents it (docs/hosts.md); keys that berth has no use for are ignored there, too.
const hostFields = {
  capabilities: z.array(capability).optional(),
  ca: z.union([z.string(), z.array(z.string())]).optional(),
  client: z.union([z.string(), z.array(z.union([z.string(), z.tuple([z.string(), z.string()])]))]).optional(),
  skip_verify: z.boolean().optional(),
  header: z.record(z.string(), z.union([z.string(), z.array(z.string())])).optional(),
  override_path: z.boolean().optional(),
  // k3s's extension, which its users know from registries.yaml.
  rewrite: z.record(z.string(), z.string()).optional(),
  dial_timeout: z.string().optional(),
};
const hostSchema = z.object(hostFields);
const fileSchema = z.object({
  ...hostFields,
  server: z.string().optional(),
  host: z.record(z.string(), hostSchema).optional(),
});
type HostConfig = z.infer<typeof hostSchema>;

/** True for names that always mean this machine: plain HTTP to them is no risk. `host` may have a port. */
export function isLoopback(host: string): boolean {
  const name = hostname(host);
  return name === 'localhost' || name === '::1' || (isIPv4(name) && name.startsWith('127.'));
}

/**
 * The servers for a registry, in the order to be tried, read afresh each time so that a change needs no
 * restart. They come from `<dir>/<host>_<port>_/hosts.toml`, `<dir>/<host>/hosts.toml` or
 * `<dir>/_default/hosts.toml` in containerd's format; without any, it is the registry itself: plain HTTP on a
 * loopback name with a port other than 443, otherwise HTTPS.
 *
 * @throws BerthError `precondition` that names the file when it is wrong: leaving out a mirror or a
 * certificate silently would be worse
 */
export async function loadHosts(dir: string, host: string): Promise<RegistryHost[]> {
  for (const folder of folders(dir, host)) {
    const text = await readOptional(join(folder, 'hosts.toml'));
    if (text !== undefined) return parseHosts(text, folder, host);
    const tls = await dockerCertificates(folder);
    if (tls !== undefined) return [{ ...origin(host), tls }];
  }
  return [origin(host)];
}

/** Hosts of one file, whose relative paths start at `folder`. Exported for tests. */
export async function parseHosts(text: string, folder: string, host: string): Promise<RegistryHost[]> {
  const file = join(folder, 'hosts.toml');
  const config = check(text, file);
  const hosts: RegistryHost[] = [];
  // In the order of the file, which TOML's tables keep.
  for (const [url, mirror] of Object.entries(config.host ?? {})) {
    hosts.push({ ...(await toHost(url, mirror, folder)), isMirror: true });
  }
  const own = origin(host);
  const server = config.server === undefined ? own.url.href : config.server;
  const last = await toHost(server, config, folder);
  return [...hosts, { ...last, ...(config.server === undefined ? { url: own.url } : {}) }];
}

function folders(dir: string, host: string): string[] {
  const colon = /:\d+$/.exec(host)?.index;
  const withPort = colon === undefined ? [] : [`${host.slice(0, colon)}_${host.slice(colon + 1)}_`];
  return [...withPort, host, '_default'].map((name) => join(dir, name));
}

function origin(host: string): RegistryHost {
  const port = /:(\d+)$/.exec(host)?.[1];
  const isPlain = isLoopback(host) && port !== undefined && port !== '443';
  const name = host === 'docker.io' ? 'registry-1.docker.io' : host;
  return {
    url: new URL(`${isPlain ? 'http' : 'https'}://${name}/v2`),
    capabilities: ALL,
    tls: {},
    headers: {},
    dialTimeoutMs: DIAL_TIMEOUT_MS,
    isMirror: false,
    rewrite: [],
  };
}

/** The path of a repository on a host. */
export function repositoryOn(host: RegistryHost, path: string): string {
  const rule = host.rewrite.find(([pattern]) => pattern.test(path));
  return rule === undefined ? path : path.replace(rule[0], rule[1]);
}

async function toHost(server: string, config: HostConfig, folder: string): Promise<RegistryHost> {
  const file = join(folder, 'hosts.toml');
  const url = URL.parse(server.includes('://') ? server : `https://${server}`);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw wrong(file, `"${server}" is no http or https URL`);
  if (url.username !== '' || url.password !== '') throw wrong(file, 'a URL may not contain credentials');
  const path = url.pathname.replace(/\/+$/, '');
  url.pathname = config.override_path === true || path.endsWith('/v2') ? path : `${path}/v2`;
  return {
    url,
    capabilities: new Set(config.capabilities ?? ALL),
    tls: await toTls(config, folder),
    headers: config.header ?? {},
    dialTimeoutMs: config.dial_timeout === undefined ? DIAL_TIMEOUT_MS : duration(config.dial_timeout, file),
    isMirror: false,
    rewrite: Object.entries(config.rewrite ?? {}).map(([pattern, path]) => [regExp(pattern, file), path]),
  };
}

function regExp(pattern: string, file: string): RegExp {
  try {
    return new RegExp(pattern);
  } catch (e: unknown) {
    throw wrong(file, `rewrite: ${messageOf(e)}`);
  }
}

async function toTls(config: HostConfig, folder: string): Promise<TlsOptions> {
  const read = (path: string): Promise<string> => readPem(resolve(folder, path));
  const tls: TlsOptions = {};
  if (config.skip_verify !== undefined) tls.skipVerify = config.skip_verify;
  if (config.ca !== undefined) tls.ca = await Promise.all([config.ca].flat().map(read));
  const pairs = typeof config.client === 'string' ? [config.client] : (config.client ?? []);
  // One file may hold both.
  const files = pairs.map((pair) => (typeof pair === 'string' ? [pair, pair] : pair) as [string, string]);
  if (files.length > 0) {
    tls.client = {
      certs: await Promise.all(files.map(([cert]) => read(cert))),
      keys: await Promise.all(files.map(([, key]) => read(key))),
    };
  }
  return tls;
}

/** Docker's own layout, which the field still has: `*.crt` authorities, `x.cert` with `x.key` for the client. */
async function dockerCertificates(folder: string): Promise<TlsOptions | undefined> {
  let names: string[];
  try {
    names = (await readdir(folder)).sort();
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return undefined;
    throw e;
  }
  const ca = await Promise.all(names.filter((n) => n.endsWith('.crt')).map((n) => readPem(join(folder, n))));
  const certs = names.filter((name) => name.endsWith('.cert')).map((name) => join(folder, name));
  const tls: TlsOptions = ca.length > 0 ? { ca } : {};
  if (certs.length > 0) {
    tls.client = {
      certs: await Promise.all(certs.map(readPem)),
      keys: await Promise.all(certs.map((cert) => readPem(cert.replace(/\.cert$/, '.key')))),
    };
  }
  return tls;
}

async function readPem(path: string): Promise<string> {
  const text = await readOptional(path);
  if (text === undefined) throw wrong(path, 'is missing');
  if (!text.includes('-----BEGIN ')) throw wrong(path, 'is no PEM file');
  return text;
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    const text = await readFile(path, 'utf8');
    if (text.length > MAX_FILE_BYTES) throw wrong(path, `has more than ${MAX_FILE_BYTES} characters`);
    return text;
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return undefined;
    throw e;
  }
}

function check(text: string, file: string): z.infer<typeof fileSchema> {
  let toml: unknown;
  try {
    toml = parse(text);
  } catch (e: unknown) {
    throw wrong(file, messageOf(e).split('\n')[0] ?? '');
  }
  const result = fileSchema.safeParse(toml);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw wrong(file, `${issue?.path.join('.')}: ${issue?.message}`);
}

/** Go's notation: `1m30s`, `500ms`. */
function duration(text: string, file: string): number {
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text))
    throw wrong(file, `dial_timeout: "${text}" is no duration such as "3s"`);
  let total = 0;
  for (const [, value, unit = ''] of text.matchAll(/([\d.]+)(ms|s|m|h)/g))
    total += Number(value) * (units[unit] ?? 0);
  return total;
}

function hostname(host: string): string {
  return host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}

function wrong(file: string, problem: string): BerthError {
  return new BerthError('precondition', `${file}: ${problem}`);
}
