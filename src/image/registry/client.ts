import type { IncomingMessage } from 'node:http';
import { BerthError, kindOf, messageOf } from '../../errors.ts';
import { type Descriptor, digestOf, MAX_MANIFEST_BYTES, MEDIA_TYPES } from '../manifest.ts';
import { isDigest, type Reference } from '../reference.ts';
import { Authorizer, type RegistryAuth } from './auth.ts';
import { type Capability, loadHosts, type RegistryHost, type TlsOptions } from './hosts.ts';
import { bodyOf, Connections, readBody, unreachable } from './http.ts';

/** A manifest or index as a registry gave it. */
export interface FetchedManifest {
  digest: string;
  bytes: Buffer;
  mediaType: string;
}

const MAX_REDIRECTS = 5;
/** Times that a broken download is taken up again where it stopped. */
const MAX_RESUMES = 3;
const { ociIndex, ociManifest, dockerIndex, dockerManifest } = MEDIA_TYPES;
const ACCEPT = [ociIndex, ociManifest, dockerIndex, dockerManifest, '*/*'].join(', ');

/**
 * A client of the OCI distribution protocol for one repository and one pull. Hosts are asked in the order of
 * the registry's configuration; the first that answers with success counts.
 */
export class RegistryClient {
  readonly #reference: Reference;
  readonly #hosts: readonly RegistryHost[];
  readonly #connections = new Connections();
  readonly #authorizer: Authorizer;
  /** Of hosts that redirected: authorities as configured, as stores beside a registry often have the same. */
  readonly #redirectTlsOf = new Map<RegistryHost, TlsOptions>();

  private constructor(reference: Reference, hosts: readonly RegistryHost[], auth: RegistryAuth | undefined) {
    this.#reference = reference;
    this.#hosts = hosts;
    this.#authorizer = new Authorizer(auth, this.#connections, reference.path);
  }

  /** @throws BerthError `precondition` when the registry's hosts.toml is wrong */
  static async open(hostsDir: string, reference: Reference, auth?: RegistryAuth): Promise<RegistryClient> {
    return new RegistryClient(reference, await loadHosts(hostsDir, reference.host), auth);
  }

  /**
   * The digest that a tag means now (or of a digest, if it may be had), or undefined when the registry does not say without sending the whole
   * manifest. Registries do not count HEAD against their limits, and most pulls find nothing new.
   *
   * @throws BerthError as `manifest`
   */
  resolve(tagOrDigest: string, signal: AbortSignal): Promise<string | undefined> {
    const capability = isDigest(tagOrDigest) ? 'pull' : 'resolve';
    return this.#eachHost(capability, async (host) => {
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
    return this.#eachHost(asked === undefined ? 'resolve' : 'pull', async (host) => {
      const step = `manifests/${tagOrDigest}`;
      const { response, url } = await this.#get(host, step, { method: 'GET', signal, accept: ACCEPT });
      const bytes = await readBody(response, url, signal, MAX_MANIFEST_BYTES);
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
    for (let attempt = 0; ; attempt++) {
      const before = received;
      try {
        for await (const chunk of this.#blobFrom(digest, received, signal)) {
          received += chunk.length;
          yield chunk;
        }
        return;
      } catch (e: unknown) {
        // Only a download that had begun: hosts that do not answer have all been tried.
        const hasProgress = received > before && received < size;
        if (kindOf(e) !== 'registryUnavailable' || !hasProgress || attempt >= MAX_RESUMES) throw e;
      }
    }
  }

  close(): void {
    this.#connections.close();
  }

  async *#blobFrom(digest: string, from: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    const { response, url } = await this.#eachHost('pull', (host) =>
      this.#get(host, `blobs/${digest}`, {
        method: 'GET',
        signal,
        ...(from === 0 ? {} : { range: `bytes=${from}-` }),
      }),
    );
    // A server may ignore the range and send all.
    let skip = response.statusCode === 206 ? 0 : from;
    for await (const chunk of bodyOf(response, url, signal)) {
      const useful = chunk.subarray(skip);
      skip -= chunk.length - useful.length;
      if (useful.length > 0) yield useful;
    }
  }

  /** The first success, in order; otherwise the last host's error, which is the registry's own. */
  async #eachHost<T>(capability: Capability, ask: (host: RegistryHost) => Promise<T>): Promise<T> {
    const failures: { host: RegistryHost; error: unknown }[] = [];
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
    throw new BerthError(kindOf(last.error), `${messageOf(last.error)}${note}`, { cause: last.error });
  }

  /** A successful answer of one host, after challenges and redirects; any other status is an error. */
  async #get(
    host: RegistryHost,
    step: string,
    options: { method: 'GET' | 'HEAD'; signal: AbortSignal; accept?: string; range?: string },
  ): Promise<{ response: IncomingMessage; url: URL }> {
    const first = new URL(host.url);
    first.pathname = `${host.url.pathname}/${this.#reference.path}/${step}`;
    if (host.isMirror) first.searchParams.set('ns', this.#reference.host);
    let url = first;
    let hasAnswered = false;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; ) {
      const response = await this.#send(host, url, options, url.origin === first.origin);
      const status = response.statusCode ?? 0;
      if (status === 200 || status === 206) return { response, url };
      const { location } = response.headers;
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
        throw refusal(url, step, status);
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
function refusal(url: URL, step: string, status: number): BerthError {
  const what = `${url.host}: ${step}: status ${status}`;
  if (status === 401) return new BerthError('permission', `${what}: credentials are missing or wrong`);
  if (status === 403) return new BerthError('permission', `${what}: access is denied`);
  if (status === 404) return new BerthError('notFound', `${what}: not found`);
  if (status === 405) return new BerthError('unimplemented', what);
  if (status === 429) return unreachable(url, new Error(`${step}: status 429: too many requests`));
  if (status >= 500) return unreachable(url, new Error(`${step}: status ${status}`));
  return new BerthError('internal', `${what}, which a registry may not answer here`);
}
