import { z } from 'zod';
import { BerthError } from '../../errors.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { isLoopback, type RegistryHost } from './hosts.ts';
import { type Connections, readBody, unreachable } from './http.ts';

/** Credentials as the kubelet passes them (CRI, AuthConfig); empty members count as absent. */
export interface RegistryAuth {
  username?: string;
  password?: string;
  /** Base64 of `username:password`. */
  auth?: string;
  /** When given, the credentials are for this registry only: a URL or a host. */
  serverAddress?: string;
  /** A refresh token, exchanged for an access token. */
  identityToken?: string;
  /** A bearer token, sent as it is. */
  registryToken?: string;
}

interface Basic {
  username: string;
  password: string;
}

const MAX_TOKEN_BYTES = 1024 * 1024;
const tokenSchema = z.object({ token: z.string().optional(), access_token: z.string().optional() });

/**
 * Answers a registry's challenges during one pull: Basic, or the token protocol of the distribution project
 * (docs/spec/auth/token.md). Nothing is sent before a host asks for it, and never to a host that a redirect
 * led to.
 */
export class Authorizer {
  readonly #auth: RegistryAuth;
  readonly #connections: Connections;
  readonly #scope: string;
  /** Authorization header by the root of a host's API. */
  readonly #headers = new Map<string, string>();

  constructor(auth: RegistryAuth | undefined, connections: Connections, repository: string) {
    this.#auth = auth ?? {};
    this.#connections = connections;
    this.#scope = `repository:${repository}:pull`;
  }

  /** The Authorization header for a host, if it has asked for one. */
  header(host: RegistryHost): string | undefined {
    return this.#headers.get(host.url.href);
  }

  /**
   * Answers the challenges of a 401. False when there is no answer, or none that was not refused already.
   *
   * @throws BerthError `permission` when the token service refuses, `unavailable` when it does not answer
   */
  async answer(host: RegistryHost, values: readonly string[], signal: AbortSignal): Promise<boolean> {
    const challenges = parseChallenges(values);
    const bearer = challenges.find((challenge) => challenge.scheme === 'bearer');
    const header =
      bearer === undefined
        ? this.#basicAnswer(host, challenges)
        : await this.#bearerAnswer(host, bearer, signal);
    if (header === undefined || header === this.#headers.get(host.url.href)) return false;
    this.#headers.set(host.url.href, header);
    return true;
  }

  #basicAnswer(host: RegistryHost, challenges: readonly Challenge[]): string | undefined {
    const credentials = this.#credentials(host);
    if (credentials === undefined || !challenges.some((challenge) => challenge.scheme === 'basic'))
      return undefined;
    return basicHeader(credentials);
  }

  async #bearerAnswer(
    host: RegistryHost,
    challenge: Challenge,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { registryToken } = this.#auth;
    if (registryToken && this.#isFor(host)) return `Bearer ${registryToken}`;
    const realm = URL.parse(challenge.parameters.get('realm') ?? '');
    if (realm === null || !/^https?:$/.test(realm.protocol)) {
      throw new BerthError(
        'registryUnavailable',
        `RegistryUnavailable: ${host.url.host}: asks for a token, but not from where`,
      );
    }
    const service = challenge.parameters.get('service');
    const scope = challenge.parameters.get('scope') ?? this.#scope;
    const credentials = this.#credentials(host);
    const identityToken = this.#isFor(host) ? this.#auth.identityToken : undefined;
    // Credentials for an https registry must not travel in the clear because its answer says so.
    const isClear = realm.protocol === 'http:' && host.url.protocol === 'https:' && !isLoopback(realm.host);
    if (isClear && (credentials !== undefined || identityToken)) {
      throw new BerthError(
        'permission',
        `${host.url.host}: wants credentials sent to ${realm.host} without TLS`,
      );
    }
    const fields = { ...(service === undefined ? {} : { service }), scope };
    return `Bearer ${await this.#token(host, realm, fields, identityToken, credentials, signal)}`;
  }

  async #token(
    host: RegistryHost,
    realm: URL,
    fields: Record<string, string>,
    identityToken: string | undefined,
    credentials: Basic | undefined,
    signal: AbortSignal,
  ): Promise<string> {
    const url = new URL(realm);
    const headers: Record<string, string> = { 'user-agent': 'berth' };
    let body: string | undefined;
    if (identityToken) {
      // OAuth 2 (distribution docs/spec/auth/oauth.md).
      headers['content-type'] = 'application/x-www-form-urlencoded';
      const form = {
        ...fields,
        grant_type: 'refresh_token',
        client_id: 'berth',
        refresh_token: identityToken,
      };
      body = new URLSearchParams(form).toString();
    } else {
      for (const [name, value] of Object.entries(fields)) url.searchParams.append(name, value);
      if (credentials !== undefined) headers.authorization = basicHeader(credentials);
    }
    const response = await this.#connections.send({
      url,
      method: body === undefined ? 'GET' : 'POST',
      headers,
      ...(body === undefined ? {} : { body }),
      tls: host.tls,
      dialTimeoutMs: host.dialTimeoutMs,
      signal,
    });
    const status = response.statusCode ?? 0;
    const bytes = await readBody(response, url, signal, this.#connections.clocks, MAX_TOKEN_BYTES);
    if (status >= 500 || status === 429) throw unreachable(url, new Error(`token service: status ${status}`));
    if (status !== 200) {
      throw new BerthError(
        'permission',
        `${host.url.host}: token service ${url.host} refused: status ${status}`,
      );
    }
    const token = parseToken(bytes);
    if (token === undefined) throw unreachable(url, new Error('token service: an answer without a token'));
    return token;
  }

  #credentials(host: RegistryHost): Basic | undefined {
    if (!this.#isFor(host)) return undefined;
    const { username, password, auth } = this.#auth;
    if (username) return { username, password: password ?? '' };
    if (!auth) return undefined;
    const text = Buffer.from(auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon === -1) throw new BerthError('invalid', 'auth.auth: must be base64 of "username:password"');
    // Some writers of docker's config pad the password with NULs.
    return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') };
  }

  /**
   * Without a server address, the credentials are for whatever the node's administrator set up for this
   * registry, mirrors included, as with containerd and CRI-O: the kubelet sends none.
   */
  #isFor(host: RegistryHost): boolean {
    const { serverAddress } = this.#auth;
    if (!serverAddress) return true;
    const named = URL.parse(serverAddress.includes('://') ? serverAddress : `https://${serverAddress}`)?.host;
    // Docker's config names its hub by the address of its first version.
    if (named === 'index.docker.io' || named === 'docker.io') return host.url.host === 'registry-1.docker.io';
    return named === host.url.host;
  }
}

function basicHeader({ username, password }: Basic): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function parseToken(bytes: Buffer): string | undefined {
  try {
    const { token, access_token } = tokenSchema.parse(JSON.parse(bytes.toString('utf8')));
    const value = token || access_token;
    // A line break would end the header.
    return value !== undefined && /^[\x21-\x7e]+$/.test(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
