import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { during, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { http } from '../util/node-http.ts';
import { SingleFlight } from '../util/single-flight.ts';
import { CONTENT_TYPE } from './exposition.ts';

const compress = promisify(gzip);

/** How long a client may take for its request, milliseconds. */
const REQUEST_MS = 10_000;

/** Serves `GET /metrics` to Prometheus. Scrapes that overlap get the same answer. */
export class MetricsServer {
  readonly #server: Server;
  readonly #read: () => Promise<Buffer>;
  readonly #log: Logger;
  readonly #scrapes = new SingleFlight<Buffer>();
  #closing: Promise<void> | undefined;

  private constructor(server: Server, read: () => Promise<Buffer>, log: Logger) {
    this.#server = server;
    this.#read = read;
    this.#log = log;
    server.on('request', (request, response) => {
      void this.#answer(request, response).catch((e: unknown) => this.#fail(response, e));
    });
  }

  /**
   * @param port 0 picks a free one
   * @param read the text to answer with
   * @throws BerthError when the address cannot be listened on
   */
  static async listen(
    { address, port }: { address: string; port: number },
    read: () => Promise<Buffer>,
    log: Logger,
  ): Promise<MetricsServer> {
    const server = http().createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS });
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(port, address, resolve);
      });
    } catch (e: unknown) {
      throw during('metrics server', e);
    }
    server.unref();
    log.info({ address, port: (server.address() as AddressInfo).port }, 'serving metrics');
    return new MetricsServer(server, read, log);
  }

  /** Ends connections, too. Repeatable. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
    return this.#closing;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').split('?')[0];
    if (path !== '/metrics') return void response.writeHead(404).end('the only path is /metrics\n');
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return void response.writeHead(405, { allow: 'GET, HEAD' }).end();
    }
    const text = await this.#scrapes.run('', this.#read);
    if (!/\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))) {
      return void response.writeHead(200, { 'content-type': CONTENT_TYPE }).end(text);
    }
    // Level 1: the text is a few megabytes of repetitions.
    const body = await compress(text, { level: 1 });
    response.writeHead(200, { 'content-type': CONTENT_TYPE, 'content-encoding': 'gzip' }).end(body);
  }

  #fail(response: ServerResponse, e: unknown): void {
    this.#log.error({ reason: messageOf(e) }, 'metrics could not be collected');
    if (!response.headersSent) response.writeHead(500);
    response.end('metrics could not be collected; see the log of berthd\n');
  }
}
