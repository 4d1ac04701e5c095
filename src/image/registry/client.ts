import type { IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, kindOf, messageOf } from '../../errors.ts';
import { type Descriptor, digestOf, MAX_MANIFEST_BYTES, MEDIA_TYPES } from '../manifest.ts';
import { isDigest, type Reference } from '../reference.ts';
import { Authorizer, type RegistryAuth } from './auth.ts';
import { type Capability, loadHosts, type RegistryHost, repositoryOn, type TlsOptions } from './hosts.ts';
import { bodyOf, CLOCKS, type Clocks, Connections, readBody, unreachable } from './http.ts';
import type { Trust } from './trust.ts';

/** A manifest or index as a registry gave it. */
export interface FetchedManifest {
  digest: string;
  bytes: Buffer;
  mediaType: string;
}

/** How registries are reached. */
export interface RegistryOptions {
  /** Folder of `<host>/hosts.toml`; need not exist. */
  hostsDir: string;
  trust: Trust;
  /** Default: CLOCKS. */
  clocks?: Clocks;
}

const MAX_REDIRECTS = 5;
/** Times that a broken download is taken up again where it stopped, if it did not get far in between. */
const MAX_RESUMES = 3;
/** Bytes after which an interruption counts as the first again: a bad line still gets there. */
const FAR = 1024 * 1024;
/** Times that hosts which answer "later" are asked again. */
const MAX_RETRIES = 3;
const { ociIndex, ociManifest, dockerIndex, dockerManifest } = MEDIA_TYPES;
const ACCEPT = [ociIndex, ociManifest, dockerIndex, dockerManifest, '*/*'].join(', ');

/**
 * A client of the OCI distribution protocol for one repository and one pull. Hosts are asked in the order of
 * the registry's configuration; the first that answers with success counts.
 */
export class RegistryClient {
  readonly #reference: Reference;
  readonly #hosts: readonly RegistryHost[];
  readonly #connections: Connections;
  readonly #authorizer: Authorizer;
  /** Of hosts that redirected: authorities as configured, as stores beside a registry often have the same. */
  readonly #redirectTlsOf = new Map<RegistryHost, TlsOptions>();

  private constructor(
    reference: Reference,
    hosts: readonly RegistryHost[],
    connections: Connections,
    auth: RegistryAuth | undefined,
  ) {
    this.#reference = reference;
    this.#hosts = hosts;
    this.#connections = connections;
    this.#authorizer = new Authorizer(auth, connections, reference.path);
  }

  /** @throws BerthError `precondition` when the registry's hosts.toml is wrong */
  static async open(
    { hostsDir, trust, clocks = CLOCKS }: RegistryOptions,
    reference: Reference,
    auth?: RegistryAuth,
  ): Promise<RegistryClient> {
    const hosts = await loadHosts(hostsDir, reference.host);
    return new RegistryClient(reference, hosts, new Connections(trust, clocks), auth);
  }

  /**
   * The digest that a tag means now (or of a digest, if it may be had), or undefined when the registry does not say without sending the whole
   * manifest. Registries do not count HEAD against their limits, and most pulls find nothing new.
   *
   * @throws BerthError as `manifest`
   */
  resolve(tagOrDigest: string, signal: AbortSignal): Promise<string | undefined> {
    const capability = isDigest(tagOrDigest) ? 'pull' : 'resolve';
    return this.#eachHost(capability, signal, async (host) => {
      const { response } = await this.#get(host, `manifests/${tagOrDigest}`, {
        method: 'HEAD',
        signal,
        accept: ACCEPT,
      });
      response.destroy();
      const digest = response.headers['docker-content-digest'];
      return typeof digest === 'string' && isDigest(digest) ? digest : undefined;
    });
  }

  /**
   * A manifest or index by tag or digest.
   *
   * @throws BerthError `notFound`, `permission`, `unavailable` (RegistryUnavailable), `invalid` when the
   * content has another digest than was asked for or announced
   */
  manifest(tagOrDigest: string, signal: AbortSignal): Promise<FetchedManifest> {
    const asked = isDigest(tagOrDigest) ? tagOrDigest : undefined;
    return this.#eachHost(asked === undefined ? 'resolve' : 'pull', signal, async (host) => {
      const step = `manifests/${tagOrDigest}`;
      const { response, url } = await this.#get(host, step, { method: 'GET', signal, accept: ACCEPT });
      const bytes = await readBody(response, url, signal, this.#connections.clocks, MAX_MANIFEST_BYTES);
      const announced = response.headers['docker-content-digest'];
      const expected =
        asked ?? (typeof announced === 'string' && isDigest(announced) ? announced : undefined);
      const digest = digestOf(bytes, expected);
      if (expected !== undefined && digest !== expected) {
        throw new BerthError(
          'invalid',
          `${url.host}: ${step} arrived with the digest ${digest} instead of ${expected}`,
        );
      }
      const mediaType = response.headers['content-type']?.split(';')[0]?.trim() ?? '';
      return { digest, bytes, mediaType };
    });
  }

  /**
   * The bytes of a blob, for the caller to verify. A connection that breaks is taken up where it stopped.
   *
   * @throws BerthError as `manifest`
   */
  async *blob({ digest, size }: Descriptor, signal: AbortSignal): AsyncGenerator<Buffer> {
    let received = 0;
    let from = 0;
    for (let attempt = 1; ; attempt++) {
      try {
        for await (const chunk of this.#blobFrom(digest, received, signal)) {
          received += chunk.length;
          yield chunk;
        }
        return;
      } catch (e: unknown) {
        if (received - from >= FAR) attempt = 1;
        from = received;
        if (kindOf(e) !== 'registryUnavailable' || received >= size || attempt > MAX_RESUMES) throw e;
        await pause(this.#connections.clocks.retry * 2 ** (attempt - 1), signal);
      }
    }
  }

  close(): void {
    this.#connections.close();
  }

  async *#blobFrom(digest: string, from: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    const { response, url } = await this.#eachHost('pull', signal, (host) =>
      this.#get(host, `blobs/${digest}`, {
        method: 'GET',
        signal,
        ...(from === 0 ? {} : { range: `bytes=${from}-` }),
      }),
    );
    // A server may ignore the range and send all.
    let skip = response.statusCode === 206 ? 0 : from;
    for await (const chunk of bodyOf(response, url, signal, this.#connections.clocks)) {
      const useful = chunk.subarray(skip);
      skip -= chunk.length - useful.length;
      if (useful.length > 0) yield useful;
    }
  }

  /** As `#askEach`, and again after a while when a host says that it is only too busy now. */
  async #eachHost<T>(
    capability: Capability,
    signal: AbortSignal,
    ask: (host: RegistryHost) => Promise<T>,
  ): Promise<T> {
    const { retry, maxRetryAfter } = this.#connections.clocks;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#askEach(capability, ask);
      } catch (e: unknown) {
        const wanted = e instanceof BusyError ? (e.retryAfterMs ?? retry * 2 ** attempt) : undefined;
        if (wanted === undefined || wanted > maxRetryAfter || attempt >= MAX_RETRIES) throw e;
        await pause(wanted, signal);
      }
    }
  }

  /** The first success, in order; otherwise the last host's error, which is the registry's own. */
  async #askEach<T>(capability: Capability, ask: (host: RegistryHost) => Promise<T>): Promise<T> {
    const failures: { host: RegistryHost; error: BerthError }[] = [];
    for (const host of this.#hosts) {
      if (!host.capabilities.has(capability)) continue;
      try {
        return await ask(host);
      } catch (error: unknown) {
        if (kindOf(error) === 'cancelled' || !(error instanceof BerthError)) throw error;
        failures.push({ host, error });
      }
    }
    const last = failures.pop();
    if (last === undefined) {
      throw new BerthError(
        'precondition',
        `${this.#reference.host}: hosts.toml has no host that may ${capability}`,
      );
    }
    const mirrors = failures
      .map(({ error }) => messageOf(error).replace(/^RegistryUnavailable: /, ''))
      .join('; ');
    const note = mirrors === '' ? '' : ` (before that, ${mirrors})`;
    const message = `${messageOf(last.error)}${note}`;
    if (last.error instanceof BusyError) throw new BusyError(message, last.error.retryAfterMs);
    throw new BerthError(kindOf(last.error), message, { cause: last.error });
  }

  /** A successful answer of one host, after challenges and redirects; any other status is an error. */
  async #get(
    host: RegistryHost,
    step: string,
    options: { method: 'GET' | 'HEAD'; signal: AbortSignal; accept?: string; range?: string },
  ): Promise<{ response: IncomingMessage; url: URL }> {
    const first = new URL(host.url);
    first.pathname = `${host.url.pathname}/${repositoryOn(host, this.#reference.path)}/${step}`;
    if (host.isMirror) first.searchParams.set('ns', this.#reference.host);
    let url = first;
    let hasAnswered = false;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; ) {
      const response = await this.#send(host, url, options, url.origin === first.origin);
      const status = response.statusCode ?? 0;
      if (status === 200 || status === 206) return { response, url };
      const { location, 'retry-after': retryAfter } = response.headers;
      const challenges = response.headersDistinct['www-authenticate'] ?? [];
      response.destroy();
      if ([301, 302, 303, 307, 308].includes(status) && location !== undefined) {
        redirects += 1;
        url = redirected(url, location);
      } else if (status === 401 && !hasAnswered && url.origin === first.origin) {
        hasAnswered = true;
        if (!(await this.#authorizer.answer(host, challenges, options.signal)))
          throw refusal(url, step, status);
      } else {
        throw refusal(url, step, status, retryAfter);
      }
    }
    throw new BerthError(
      'registryUnavailable',
      `RegistryUnavailable: ${first.host}: ${step}: more than ${MAX_REDIRECTS} redirects`,
    );
  }

  /** Credentials, certificates and configured headers go to the configured host only. */
  #send(
    host: RegistryHost,
    url: URL,
    options: { method: 'GET' | 'HEAD'; signal: AbortSignal; accept?: string; range?: string },
    isOwn: boolean,
  ): Promise<IncomingMessage> {
    const authorization = isOwn ? this.#authorizer.header(host) : undefined;
    return this.#connections.send({
      url,
      method: options.method,
      headers: {
        'user-agent': 'berth',
        ...(isOwn ? host.headers : {}),
        ...(options.accept === undefined ? {} : { accept: options.accept }),
        ...(options.range === undefined ? {} : { range: options.range }),
        ...(authorization === undefined ? {} : { authorization }),
      },
      tls: isOwn ? host.tls : this.#redirectTls(host),
      dialTimeoutMs: host.dialTimeoutMs,
      signal: options.signal,
    });
  }

  #redirectTls(host: RegistryHost): TlsOptions {
    const { client: _, ...tls } = host.tls;
    const known = this.#redirectTlsOf.get(host) ?? tls;
    this.#redirectTlsOf.set(host, known);
    return known;
  }
}

function redirected(from: URL, location: string): URL {
  const url = URL.parse(location, from.href);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new BerthError(
      'registryUnavailable',
      `RegistryUnavailable: ${from.host}: redirects to what is no http or https URL`,
    );
  }
  return url;
}

/** What a status other than success means for the caller. */
function refusal(url: URL, step: string, status: number, retryAfter?: string): BerthError {
  const what = `${url.host}: ${step}: status ${status}`;
  if (status === 401) return new BerthError('permission', `${what}: credentials are missing or wrong`);
  if (status === 403) return new BerthError('permission', `${what}: access is denied`);
  if (status === 404) return new BerthError('notFound', `${what}: not found`);
  if (status === 405) return new BerthError('unimplemented', what);
  if (status === 429 || (status === 503 && retryAfter !== undefined)) {
    const why = status === 429 ? 'too many requests' : 'not now';
    return new BusyError(
      `RegistryUnavailable: ${url.host}: ${step}: status ${status}: ${why}`,
      parseRetryAfter(retryAfter),
    );
  }
  if (status >= 500) return unreachable(url, new Error(`${step}: status ${status}`));
  return new BerthError('internal', `${what}, which a registry may not answer here`);
}

/** A host that asks to be asked again later. */
class BusyError extends BerthError {
  /** Milliseconds; undefined when it did not say how much later. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, retryAfterMs: number | undefined) {
    super('registryUnavailable', message);
    this.retryAfterMs = retryAfterMs;
  }
}

/** Seconds or a date (RFC 9110, section 10.2.3) as milliseconds from now. Exported for tests. */
function parseRetryAfter(value: string | undefined, now = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** @throws the signal's reason */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {});
  signal.throwIfAborted();
}
