import { once } from 'node:events';
import { type ClientRequest, request } from 'node:http';
import type { Socket } from 'node:net';
import WebSocket from 'ws';
import { headerDictionary } from '../../src/streaming/spdy/dictionary.ts';
import { control, data, uint32, WireClient, WireReader } from './spdy-wire.ts';

/** Streams that a client asks for; all but stderr by default. */
export interface Wanted {
  stdin?: boolean;
  stdout?: boolean;
  stderr?: boolean;
  tty?: boolean;
}

type Kind = 'error' | 'stdin' | 'stdout' | 'stderr' | 'resize';
const CHANNELS: readonly Kind[] = ['stdin', 'stdout', 'stderr', 'error', 'resize'];

/** A client of exec or attach, written for tests after what kubectl's library sends. */
export abstract class RemoteClient {
  /** What came on each stream. */
  readonly got: Record<Kind, Buffer[]> = { error: [], stdin: [], stdout: [], stderr: [], resize: [] };
  /** Resolves when the connection is closed. */
  abstract readonly closed: Promise<unknown>;
  /** Calls back with every piece of output. */
  onOutput: (kind: Kind, piece: Buffer) => void = () => {};

  abstract send(text: string | Buffer): void;
  /** Ends the input, where the protocol can. */
  abstract endInput(): void;
  abstract resize(width: number, height: number): void;
  /** Resolves when what was sent has left this process. */
  abstract drained(): Promise<void>;
  /** Goes without a word, as a killed process does. */
  abstract vanish(): void;
  /** Stops and goes on with reading. */
  abstract pause(): void;
  abstract resume(): void;

  text(kind: Kind): string {
    return Buffer.concat(this.got[kind]).toString();
  }

  /** All that came, when the server has closed the connection. */
  async end(): Promise<{ stdout: string; stderr: string; status: unknown }> {
    await this.closed;
    const error = this.text('error');
    const status: unknown = error.startsWith('{') ? JSON.parse(error) : error;
    return { stdout: this.text('stdout'), stderr: this.text('stderr'), status };
  }

  protected take(kind: Kind, piece: Buffer): void {
    this.got[kind].push(piece);
    this.onOutput(kind, piece);
  }
}

/** The status of a command that ended with this code. */
export function exited(code: number): object {
  if (code === 0) return { metadata: {}, status: 'Success' };
  return {
    metadata: {},
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code: exit status ${code}`,
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

/** A request that asks for an upgrade, and how it was answered. */
export async function upgrade(
  url: string,
  headers: Record<string, string | string[]>,
  method = 'POST',
): Promise<{
  status: number;
  headers: NodeJS.Dict<string | string[]>;
  socket?: Socket;
  head?: Buffer;
  body?: string;
}> {
  const sent: ClientRequest = request(url, {
    method,
    headers: { Connection: 'Upgrade', ...headers },
  });
  sent.end();
  return new Promise((resolve, reject) => {
    sent.once('error', reject);
    sent.once('upgrade', (response, socket, head) =>
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        socket: socket as Socket,
        head,
      }),
    );
    sent.once('response', (response) => {
      let body = '';
      response.on('data', (chunk) => (body += String(chunk)));
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
      );
    });
  });
}

/** Opens exec or attach over SPDY. */
export async function openSpdy(
  url: string,
  wanted: Wanted,
  protocol = 'v4.channel.k8s.io',
): Promise<RemoteClient> {
  const answer = await upgrade(url, { Upgrade: 'SPDY/3.1', 'X-Stream-Protocol-Version': protocol });
  if (answer.socket === undefined) throw new Error(`not upgraded: ${answer.status} ${answer.body}`);
  const client = new SpdyClient(answer.socket);
  if (answer.head && answer.head.length > 0) answer.socket.unshift(answer.head);
  await client.open(wanted, /^v[34]/.test(protocol));
  return client;
}

class SpdyClient extends RemoteClient {
  readonly closed: Promise<unknown>;
  readonly #socket: Socket;
  readonly #wire = new WireClient(headerDictionary());
  readonly #reader = new WireReader();
  readonly #ids = new Map<Kind, number>();

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on('error', () => {});
    // An error is one of the ways to close.
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('data', (chunk: Buffer) => {
      for (const { type, stream, payload } of this.#reader.push(chunk)) {
        const kind = [...this.#ids].find(([, id]) => id === stream)?.[0];
        if (type === undefined && kind !== undefined && payload.length > 0) this.take(kind, payload);
        if (type === 7) socket.end();
      }
    });
  }

  async open(wanted: Wanted, resizes: boolean): Promise<void> {
    const kinds = (['error', 'stdin', 'stdout', 'stderr', 'resize'] as const).filter((kind) =>
      kind === 'error' ? true : kind === 'resize' ? wanted.tty === true && resizes : wanted[kind] === true,
    );
    for (const [i, kind] of kinds.entries()) {
      this.#ids.set(kind, 2 * i + 1);
      this.#socket.write(await this.#wire.synStream(2 * i + 1, { streamtype: kind }));
    }
  }

  send(text: string | Buffer): void {
    this.#socket.write(data(this.#id('stdin'), text));
  }
  endInput(): void {
    this.#socket.write(data(this.#id('stdin'), '', true));
  }
  async drained(): Promise<void> {
    if (this.#socket.writableLength > 0) await once(this.#socket, 'drain');
  }
  resize(width: number, height: number): void {
    this.#socket.write(data(this.#id('resize'), JSON.stringify({ Width: width, Height: height })));
  }
  /** Resets a stream, as a client does that loses interest. */
  reset(kind: Kind): void {
    this.#socket.write(control(3, 0, Buffer.concat([uint32(this.#id(kind)), uint32(5)])));
  }
  vanish(): void {
    this.#socket.resetAndDestroy();
  }
  pause(): void {
    this.#socket.pause();
  }
  resume(): void {
    this.#socket.resume();
  }

  #id(kind: Kind): number {
    const id = this.#ids.get(kind);
    if (id === undefined) throw new Error(`${kind} is not open`);
    return id;
  }
}

/** Opens exec or attach over WebSocket. */
export async function openWebSocket(url: string, protocol = 'v5.channel.k8s.io'): Promise<RemoteClient> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), protocol === '' ? [] : [protocol]);
  const client = new WebSocketClient(socket, protocol);
  await once(socket, 'open');
  return client;
}

class WebSocketClient extends RemoteClient {
  readonly closed: Promise<unknown>;
  readonly #socket: WebSocket;
  readonly #base64: boolean;
  readonly #closable: boolean;

  constructor(socket: WebSocket, protocol: string) {
    super();
    this.#socket = socket;
    this.#base64 = protocol.includes('base64');
    this.#closable = protocol.startsWith('v5');
    // An error is one of the ways to close.
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.on('message', (message: Buffer) => {
      const channel = (message[0] ?? 0) - (this.#base64 ? 48 : 0);
      const payload = this.#base64
        ? Buffer.from(message.toString('latin1', 1), 'base64')
        : message.subarray(1);
      const kind = CHANNELS[channel];
      if (kind !== undefined && payload.length > 0) this.take(kind, payload);
    });
  }

  send(text: string | Buffer): void {
    this.#write(0, Buffer.from(text));
  }
  endInput(): void {
    if (!this.#closable) throw new Error('this protocol cannot end the input');
    this.#socket.send(Buffer.from([255, 0]));
  }
  async drained(): Promise<void> {
    while (this.#socket.bufferedAmount > 0) await new Promise((resolve) => setImmediate(resolve));
  }
  resize(width: number, height: number): void {
    this.#write(4, Buffer.from(JSON.stringify({ Width: width, Height: height })));
  }
  vanish(): void {
    this.#socket.terminate();
  }
  pause(): void {
    this.#socket.pause();
  }
  resume(): void {
    this.#socket.resume();
  }

  #write(channel: number, payload: Buffer): void {
    if (this.#base64) this.#socket.send(String(channel) + payload.toString('base64'));
    else this.#socket.send(Buffer.concat([Buffer.from([channel]), payload]));
  }
}
