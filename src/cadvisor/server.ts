import { chmod, mkdir, rm } from 'node:fs/promises';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { during } from '../errors.ts';
import type { Services } from '../services.ts';
import { stringifyOci } from '../spec/json.ts';
import { http } from '../util/node-http.ts';
import { removeStaleSocket } from '../util/stale-socket.ts';
import { type Described, describeContainer, describeRuntime } from './answers.ts';

/** How long a client may take for its request, milliseconds. */
const REQUEST_MS = 10_000;

/**
 * Tells cAdvisor, which every kubelet has built in, whose cgroups it finds. It knows runtimes by name; of
 * those, CRI-O is the one that it asks for no more than two small answers over HTTP, and whose cgroups it
 * knows by the first letters of their names ({@link cgroupLeaf}).
 */
export class CadvisorServer {
  readonly #server: Server;
  readonly #path: string;
  #closing: Promise<void> | undefined;

  private constructor(server: Server, path: string) {
    this.#server = server;
    this.#path = path;
  }

  /**
   * @returns undefined when the configuration does not want it
   * @throws BerthError precondition when another daemon has the socket
   */
  static async listen(s: Described & Pick<Services, 'log'>): Promise<CadvisorServer | undefined> {
    const { enabled, socket: path } = s.config.cadvisor;
    if (!enabled) return undefined;
    const server = http().createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS });
    server.on('request', (request, response) => answer(s, request, response));
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o755 });
      await removeStaleSocket(path, 'cadvisor.socket');
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(path, resolve);
      });
      // Labels and annotations are nobody's business; the kubelet is root.
      await chmod(path, 0o600);
    } catch (e: unknown) {
      server.close();
      throw during('socket for cAdvisor', e);
    }
    server.unref();
    s.log.info({ socket: path }, 'telling cAdvisor of containers');
    return new CadvisorServer(server, path);
  }

  /** Ends connections, too, and removes the socket. Repeatable. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
    await rm(this.#path, { force: true });
  }
}

function answer(s: Described, { method, url = '' }: IncomingMessage, response: ServerResponse): void {
  const found = method === 'GET' ? find(s, url) : undefined;
  // Of a container that is not known yet cAdvisor asks again when the answer is 404.
  if (found === undefined) return void response.writeHead(404).end('no such container\n');
  response.writeHead(200, { 'content-type': 'application/json' }).end(stringifyOci(found));
}

function find(s: Described, url: string): object | undefined {
  if (url === '/info') return describeRuntime(s);
  const id = /^\/containers\/([0-9a-f]{64})$/.exec(url)?.[1];
  return id === undefined ? undefined : describeContainer(s, id);
}
