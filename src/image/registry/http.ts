import type { Agent as HttpAgent, IncomingMessage } from 'node:http';
import type { Agent as HttpsAgent } from 'node:https';
import type { Socket } from 'node:net';
import { rootCertificates } from 'node:tls';
import { BerthError, messageOf } from '../../errors.ts';
import { http, https } from '../../util/node-http.ts';
import { isLoopback, type TlsOptions } from './hosts.ts';

/** Milliseconds from a request to the headers of its answer. */
const HEADERS_MS = 60_000;
/** Milliseconds without a byte after which a body is given up. */
const IDLE_MS = 60_000;
/** A body that brings less than `MIN_BYTES` in `WINDOW_MS` of waiting is given up: a trickle is no progress. */
const WINDOW_MS = 120_000;
const MIN_BYTES = 64 * 1024;

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
  readonly #agents = new Map<TlsOptions, HttpsAgent>();
  readonly #plain = new http.Agent({ keepAlive: true, proxyEnv: process.env });
  readonly #loopback = new http.Agent({ keepAlive: true });

  /**
   * Sends a request and waits for the headers of its answer, whose body the caller reads or destroys.
   *
   * @throws BerthError `unavailable` beginning with RegistryUnavailable when the host cannot be reached, or
   * the signal's reason
   */
  async send(request: Request): Promise<IncomingMessage> {
    const { url, signal } = request;
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const options = {
      method: request.method,
      headers: request.headers,
      signal,
      agent: this.#agent(url, request.tls),
    };
    const out = url.protocol === 'https:' ? https.request(url, options) : http.request(url, options);
    const fail = (problem: string): void => {
      out.destroy(new BerthError('unavailable', problem));
    };
    let timer = setTimeout(() => fail('no connection in time'), request.dialTimeoutMs);
    const connected = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => fail('no answer in time'), HEADERS_MS);
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

  #agent(url: URL, tls: TlsOptions): HttpAgent | HttpsAgent {
    const isLocal = isLoopback(url.host);
    if (url.protocol === 'http:') return isLocal ? this.#loopback : this.#plain;
    const known = this.#agents.get(tls);
    if (known !== undefined) return known;
    const agent = new https.Agent({
      keepAlive: true,
      ...(isLocal ? {} : { proxyEnv: process.env }),
      // Added to the usual authorities, not instead of them: a redirect may lead to a public store.
      ...(tls.ca === undefined ? {} : { ca: [...rootCertificates, ...tls.ca] }),
      ...tls.client,
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
): AsyncGenerator<Buffer> {
  const chunks = response[Symbol.asyncIterator]();
  let waitedMs = 0;
  let bytes = 0;
  try {
    for (;;) {
      const began = performance.now();
      const timer = setTimeout(
        () => response.destroy(new BerthError('unavailable', 'no bytes in time')),
        IDLE_MS,
      );
      let next: IteratorResult<unknown>;
      try {
        next = await chunks.next();
      } finally {
        clearTimeout(timer);
      }
      if (next.done === true) break;
      const chunk = next.value as Buffer;
      waitedMs += performance.now() - began;
      bytes += chunk.length;
      if (waitedMs > WINDOW_MS) {
        if (bytes < MIN_BYTES) throw new BerthError('unavailable', 'bytes come too slowly');
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
    response.destroy();
  }
}

/** A small body as a whole. @throws BerthError `invalid` when it is larger than `limit` bytes */
export async function readBody(
  response: IncomingMessage,
  url: URL,
  signal: AbortSignal,
  limit: number,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of bodyOf(response, url, signal)) {
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
