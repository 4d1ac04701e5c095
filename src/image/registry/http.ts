import type { Agent as HttpAgent, IncomingMessage } from 'node:http';
import type { Agent as HttpsAgent } from 'node:https';
import type { Socket } from 'node:net';
import { BerthError, messageOf } from '../../errors.ts';
import { http, https } from '../../util/node-http.ts';
import { isLoopback, type TlsOptions } from './hosts.ts';
import type { Trust } from './trust.ts';

/** How long a registry may take, in milliseconds unless it says bytes. */
export interface Clocks {
  /** From a request to the headers of its answer. */
  headers: number;
  /** Without a byte, after which a body is given up. */
  idle: number;
  /** A body that brings less than `minBytes` in `window` of waiting is given up: a trickle is no progress. */
  window: number;
  minBytes: number;
  /** The longest `Retry-After` that is waited for; without that header, the first of ever longer waits. */
  maxRetryAfter: number;
  retry: number;
}

export const CLOCKS: Clocks = {
  headers: 60_000,
  idle: 60_000,
  window: 120_000,
  minBytes: 64 * 1024,
  maxRetryAfter: 60_000,
  retry: 500,
};

export interface Request {
  url: URL;
  method: 'GET' | 'HEAD' | 'POST';
  headers: Record<string, string | string[]>;
  body?: string;
  tls: TlsOptions;
  dialTimeoutMs: number;
  signal: AbortSignal;
}

/**
 * HTTP connections of one pull, kept alive between its requests. Proxies are those of the environment
 * (HTTPS_PROXY, NO_PROXY …), which service managers set; loopback is never asked through one.
 */
export class Connections {
  readonly clocks: Clocks;
  readonly #trust: Trust;
  readonly #agents = new Map<TlsOptions, HttpsAgent>();
  readonly #plain = new (http().Agent)({ keepAlive: true, proxyEnv: process.env });
  readonly #loopback = new (http().Agent)({ keepAlive: true });

  constructor(trust: Trust, clocks: Clocks) {
    this.#trust = trust;
    this.clocks = clocks;
  }

  /**
   * Sends a request and waits for the headers of its answer, whose body the caller reads or destroys.
   *
   * @throws BerthError `unavailable` beginning with RegistryUnavailable when the host cannot be reached, or
   * the signal's reason
   */
  async send(request: Request): Promise<IncomingMessage> {
    const { url, signal } = request;
    signal.throwIfAborted();
    const agent = await this.#agent(url, request.tls);
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const options = {
      method: request.method,
      headers: request.headers,
      signal,
      agent,
    };
    const out = url.protocol === 'https:' ? https().request(url, options) : http().request(url, options);
    const fail = (problem: string): void => {
      out.destroy(new BerthError('unavailable', problem));
    };
    let timer = setTimeout(() => fail('no connection in time'), request.dialTimeoutMs);
    const connected = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => fail('no answer in time'), this.clocks.headers);
    };
    out.on('socket', (socket: Socket) => {
      if (!socket.connecting) connected();
      else socket.once(url.protocol === 'https:' ? 'secureConnect' : 'connect', connected);
    });
    out.on('response', resolve);
    out.on('error', reject);
    out.end(request.body);
    try {
      return await promise;
    } catch (e: unknown) {
      signal.throwIfAborted();
      throw unreachable(url, e);
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#plain.destroy();
    this.#loopback.destroy();
    for (const agent of this.#agents.values()) agent.destroy();
  }

  async #agent(url: URL, tls: TlsOptions): Promise<HttpAgent | HttpsAgent> {
    const isLocal = isLoopback(url.host);
    if (url.protocol === 'http:') return isLocal ? this.#loopback : this.#plain;
    const known = this.#agents.get(tls);
    if (known !== undefined) return known;
    const secureContext = await this.#trust.context(tls).catch((e: unknown) => {
      throw new BerthError('precondition', `${url.host}: certificates for it: ${messageOf(e)}`, { cause: e });
    });
    // Another request may have made it meanwhile.
    const made = this.#agents.get(tls);
    if (made !== undefined) return made;
    const agent = new (https().Agent)({
      keepAlive: true,
      ...(isLocal ? {} : { proxyEnv: process.env }),
      secureContext,
      rejectUnauthorized: tls.skipVerify !== true,
    });
    this.#agents.set(tls, agent);
    return agent;
  }
}

/**
 * The bytes of a body, given up when they stop coming. Time that the caller takes does not count.
 *
 * @throws BerthError `unavailable`, or the signal's reason
 */
export async function* bodyOf(
  response: IncomingMessage,
  url: URL,
  signal: AbortSignal,
  clocks: Clocks,
): AsyncGenerator<Buffer> {
  const chunks = response[Symbol.asyncIterator]();
  let waitedMs = 0;
  let bytes = 0;
  let isWaiting = true;
  const timer = setTimeout(() => {
    if (isWaiting) response.destroy(new BerthError('unavailable', 'no bytes in time'));
    else timer.refresh();
  }, clocks.idle);
  try {
    for (;;) {
      isWaiting = true;
      timer.refresh();
      const began = performance.now();
      const next: IteratorResult<unknown> = await chunks.next();
      isWaiting = false;
      if (next.done === true) break;
      const chunk = next.value as Buffer;
      waitedMs += performance.now() - began;
      bytes += chunk.length;
      if (waitedMs > clocks.window) {
        if (bytes < clocks.minBytes) throw new BerthError('unavailable', 'bytes come too slowly');
        waitedMs = 0;
        bytes = 0;
      }
      yield chunk;
    }
    if (!response.complete) throw new BerthError('unavailable', 'the body was cut short');
  } catch (e: unknown) {
    signal.throwIfAborted();
    throw unreachable(url, e);
  } finally {
    clearTimeout(timer);
    response.destroy();
  }
}

/** A small body as a whole. @throws BerthError `invalid` when it is larger than `limit` bytes */
export async function readBody(
  response: IncomingMessage,
  url: URL,
  signal: AbortSignal,
  clocks: Clocks,
  limit: number,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of bodyOf(response, url, signal, clocks)) {
    size += chunk.length;
    if (size > limit) throw new BerthError('invalid', `${url.host}: an answer of more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The kubelet tells this case by the message's first word (kubelet/images/types.go, ErrRegistryUnavailable). */
export function unreachable(url: URL, e: unknown): BerthError {
  const problem = e instanceof AggregateError ? e.errors.map(messageOf).join(', ') : messageOf(e);
  return new BerthError('registryUnavailable', `RegistryUnavailable: ${url.host}: ${problem}`, { cause: e });
}
