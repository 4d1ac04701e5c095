import { readFile } from 'node:fs/promises';
import type { IncomingMessage, Server } from 'node:http';
import { type AddressInfo, isIPv6, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { during, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { http, https } from '../util/node-http.ts';
import { acceptSpdy, refuse, upgradeOf } from './negotiate.ts';
import type { DialPort } from './port-forward/forward.ts';
import { PORT_FORWARD_PROTOCOL, servePortForward } from './port-forward/spdy.ts';
import type { OpenSession, RemoteCommand, WantedStreams } from './remote-command/session.ts';
import { openSpdySession, SPDY_PROTOCOLS } from './remote-command/spdy.ts';
import { TokenStore } from './tokens.ts';
import { acceptPortForward, openWebSocketSession } from './websocket/upgrade.ts';

/** How long a client may take to open its streams, milliseconds. */
const CREATION_MS = 30_000;
/** When a silent peer is asked whether it is there, milliseconds. */
const KEEP_ALIVE_MS = 60_000;

/** Where and how the server listens. */
export interface StreamingOptions {
  address: string;
  /** 0 picks a free one. */
  port: number;
  /** Paths of PEM files; empty: plain HTTP. With `clientCa`, clients must show a certificate of it. */
  tls: { cert: string; key: string; clientCa: string };
  /** Milliseconds after which a connection without traffic is closed; 0: never. */
  idleMs: number;
}

/** What a token stands for. */
type Request =
  | { kind: 'exec' | 'attach'; wanted: WantedStreams; run: RemoteCommand }
  | { kind: 'portforward'; ports: number[]; dial: DialPort };

/**
 * Serves exec, attach and port-forward to whoever comes with a URL that the CRI service has given out: the
 * kubelet, which passes on what kubectl sends, or crictl. A URL is good for one connection, for a minute.
 */
export class StreamingServer {
  readonly #log: Logger;
  readonly #server: Server;
  readonly #base: string;
  readonly #idleMs: number;
  readonly #tokens = new TokenStore<Request>();
  readonly #connections = new Set<Duplex>();
  #closing: Promise<void> | undefined;

  private constructor(server: Server, base: string, idleMs: number, log: Logger) {
    this.#server = server;
    this.#base = base;
    this.#idleMs = idleMs;
    this.#log = log;
    server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket as Socket, head));
    server.on('connection', (socket) => this.#track(socket));
  }

  /** @throws BerthError when a certificate cannot be read or the address cannot be listened on */
  static async listen(options: StreamingOptions, log: Logger): Promise<StreamingServer> {
    try {
      const { cert, key, clientCa } = options.tls;
      const secure = cert !== '';
      const server = secure
        ? https().createServer(await readTls(cert, key, clientCa))
        : http().createServer();
      // Everything here is an upgrade; what is not gets to know nothing.
      server.on('request', (_request, response) => response.writeHead(404).end('not found\n'));
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(options.port, options.address, resolve);
      });
      server.unref();
      const { address, port } = server.address() as AddressInfo;
      const base = `${secure ? 'https' : 'http'}://${reachable(address)}:${port}`;
      return new StreamingServer(server, base, options.idleMs, log);
    } catch (e: unknown) {
      throw during('streaming server', e);
    }
  }

  /** A URL under which one client can talk to `run`. @throws BerthError `exhausted` */
  command(kind: 'exec' | 'attach', wanted: WantedStreams, run: RemoteCommand): string {
    return this.#url(kind, { kind, wanted, run });
  }

  /**
   * A URL under which one client can have ports forwarded.
   *
   * @param ports those of the request; clients of SPDY name theirs with each stream
   * @throws BerthError `exhausted`
   */
  portForward(ports: number[], dial: DialPort): string {
    return this.#url('portforward', { kind: 'portforward', ports, dial });
  }

  /** Takes no more clients and cuts off those there are. Repeatable. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const socket of this.#connections) socket.destroy();
    });
    return this.#closing;
  }

  #url(kind: Request['kind'], request: Request): string {
    return `${this.#base}/${kind}/${this.#tokens.put(request)}`;
  }

  #track(socket: Duplex): void {
    this.#connections.add(socket);
    socket.once('close', () => this.#connections.delete(socket));
    socket.on('error', () => {});
  }

  #upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const [, kind, token = ''] = /^\/(\w+)\/([\w-]+)(?:\?|$)/.exec(request.url ?? '') ?? [];
    const found = this.#tokens.take(token);
    if (found === undefined || found.kind !== kind) {
      refuse(socket, 404, 'not found');
      return;
    }
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.setTimeout(this.#idleMs, () => socket.destroy());
    this.#serve(found, request, socket, head).catch((e: unknown) => {
      this.#log.info({ kind, reason: messageOf(e) }, 'a streaming client was not served');
      socket.destroy();
    });
  }

  async #serve(found: Request, request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const upgrade = upgradeOf(request);
    if (upgrade === undefined) {
      refuse(socket, 400, 'only upgrades to SPDY/3.1 and websocket are served');
      return;
    }
    if (found.kind === 'portforward') {
      const transport =
        upgrade === 'websocket'
          ? await acceptPortForward(request, socket, head, found)
          : acceptSpdy(request, withHead(socket, head), [PORT_FORWARD_PROTOCOL]) && socket;
      if (transport) servePortForward(transport, found.dial, CREATION_MS, this.#log);
      return;
    }
    const session =
      upgrade === 'websocket'
        ? await openWebSocketSession(request, socket, head, found.wanted)
        : await this.#spdySession(request, withHead(socket, head), found.wanted);
    if (session !== undefined) await session.finish(await found.run(session));
  }

  async #spdySession(
    request: IncomingMessage,
    socket: Socket,
    wanted: WantedStreams,
  ): Promise<OpenSession | undefined> {
    const protocol = acceptSpdy(request, socket, SPDY_PROTOCOLS);
    return protocol === undefined ? undefined : openSpdySession(socket, protocol, wanted, CREATION_MS);
  }
}

/** What came with the request belongs to the new protocol. */
function withHead(socket: Socket, head: Buffer): Socket {
  if (head.length > 0) socket.unshift(head);
  return socket;
}

/** Everybody who asks is on this machine, or the address is set to one that others can use. */
function reachable(address: string): string {
  if (address === '0.0.0.0') return '127.0.0.1';
  if (address === '::') return '[::1]';
  return isIPv6(address) ? `[${address}]` : address;
}

async function readTls(cert: string, key: string, clientCa: string) {
  const [certPem, keyPem, caPem] = await Promise.all([
    readFile(cert),
    readFile(key),
    clientCa === '' ? undefined : readFile(clientCa),
  ]);
  return {
    cert: certPem,
    key: keyPem,
    minVersion: 'TLSv1.2' as const,
    ...(caPem === undefined ? {} : { ca: caPem, requestCert: true, rejectUnauthorized: true }),
  };
}
