import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { headerDictionary } from '../../src/streaming/spdy/dictionary.ts';
import { upgrade } from './remote-command.ts';
import { control, data, uint32, WireClient, WireReader } from './spdy-wire.ts';

/** One forwarded connection, as a client sees it. */
export class Forwarded {
  readonly #session: PortForwardClient;
  readonly #id: number;
  readonly parts: Buffer[] = [];
  /** False: what comes is dropped. */
  keep = true;
  error = '';
  /** The server has ended its half of the data, or reset it. */
  ended = false;
  reset = false;
  /** The error stream is over, by which a client knows that all is done. */
  done = false;

  constructor(session: PortForwardClient, id: number) {
    this.#session = session;
    this.#id = id;
  }

  get text(): string {
    return Buffer.concat(this.parts).toString();
  }
  send(text: string | Buffer): void {
    this.#session.write(data(this.#id, text));
  }
  end(): void {
    this.#session.write(data(this.#id, '', true));
  }
  resetIt(): void {
    this.#session.write(control(3, 0, Buffer.concat([uint32(this.#id), uint32(5)])));
  }
}

/** A client of port forwarding over SPDY, after what kubectl's library sends. */
export class PortForwardClient {
  readonly closed: Promise<unknown>;
  readonly #transport: Duplex;
  readonly #wire = new WireClient(headerDictionary());
  readonly #streams = new Map<number, { to: Forwarded; error: boolean }>();
  #nextId = 1;
  #opening: Promise<unknown> = Promise.resolve();

  constructor(transport: Duplex) {
    this.#transport = transport;
    const reader = new WireReader();
    transport.on('error', () => {});
    this.closed = new Promise((resolve) => transport.once('close', resolve));
    transport.on('data', (chunk: Buffer) => {
      for (const { type, flags, stream, payload } of reader.push(chunk)) {
        const found = this.#streams.get(stream);
        if (type === 7) transport.end();
        if (found === undefined) continue;
        const { to, error } = found;
        if (type === 3) to.reset = true;
        if (type !== undefined) continue;
        if (error) to.error += payload.toString();
        else if (to.keep) to.parts.push(payload);
        if (flags === 1 && error) to.done = true;
        else if (flags === 1) to.ended = true;
      }
    });
  }

  /** Opens a pair of streams. */
  open(port: number, options: { requestId?: boolean } = {}): Promise<Forwarded> {
    // Headers are compressed in the order in which they are sent.
    const opened = this.#opening.then(() => this.#open(port, options));
    this.#opening = opened;
    return opened;
  }

  async #open(port: number, options: { requestId?: boolean }): Promise<Forwarded> {
    const [error, both] = [this.#nextId, this.#nextId + 2];
    this.#nextId += 4;
    const forwarded = new Forwarded(this, both);
    this.#streams.set(error, { to: forwarded, error: true });
    this.#streams.set(both, { to: forwarded, error: false });
    const id = options.requestId === false ? {} : { requestid: String(error) };
    this.write(await this.#wire.synStream(error, { streamtype: 'error', port: String(port), ...id }));
    this.write(await this.#wire.synStream(both, { streamtype: 'data', port: String(port), ...id }));
    return forwarded;
  }

  write(bytes: Buffer): void {
    if (this.#transport.writable) this.#transport.write(bytes);
  }
  destroy(): void {
    this.#transport.destroy();
  }
}

/** Over SPDY, as the kubelet and `crictl port-forward` do. */
export async function forwardOverSpdy(url: string): Promise<PortForwardClient> {
  const { socket, head, status, body } = await upgrade(url, {
    Upgrade: 'SPDY/3.1',
    'X-Stream-Protocol-Version': 'portforward.k8s.io',
  });
  if (socket === undefined) throw new Error(`not upgraded: ${status} ${body}`);
  if (head && head.length > 0) socket.unshift(head);
  return new PortForwardClient(socket);
}

/** Over SPDY in WebSocket, as kubectl does from 1.31 on. */
export async function forwardOverTunnel(url: string): Promise<PortForwardClient> {
  const { socket, head, status, body, headers } = await upgrade(
    url,
    {
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
      'Sec-WebSocket-Protocol': 'SPDY/3.1+portforward.k8s.io',
    },
    'GET',
  );
  if (socket === undefined) throw new Error(`not upgraded: ${status} ${body}`);
  if (headers['sec-websocket-protocol'] !== 'SPDY/3.1+portforward.k8s.io')
    throw new Error('another subprotocol');
  if (head && head.length > 0) socket.unshift(head);
  return new PortForwardClient(webSocketBytes(socket));
}

/**
 * The bytes in a WebSocket's binary messages (RFC 6455). The library on the server's side cannot be the
 * client's here: it takes no subprotocol with a slash.
 */
function webSocketBytes(socket: Socket): Duplex {
  let rest = Buffer.alloc(0);
  const bytes = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => void socket.write(clientFrame(2, chunk), done),
    final: (done) => void socket.end(clientFrame(8, Buffer.from([3, 232])), done),
    destroy: (e, done) => {
      socket.destroy();
      done(e);
    },
  });
  socket.on('error', () => {});
  socket.on('close', () => bytes.destroy());
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    for (let frame = serverFrame(rest); frame !== undefined; frame = serverFrame(rest)) {
      rest = rest.subarray(frame.size);
      if (frame.opcode === 8) bytes.push(null);
      else bytes.push(frame.payload);
    }
  });
  return bytes;
}

function clientFrame(opcode: number, payload: Buffer): Buffer {
  const mask = randomBytes(4);
  const length =
    payload.length < 126
      ? Buffer.from([0x80 | payload.length])
      : Buffer.from([0x80 | 127, 0, 0, 0, 0, ...uint32(payload.length)]);
  const masked = Buffer.from(payload.map((byte, i) => byte ^ (mask[i % 4] ?? 0)));
  return Buffer.concat([Buffer.from([0x80 | opcode]), length, mask, masked]);
}

function serverFrame(bytes: Buffer): { opcode: number; payload: Buffer; size: number } | undefined {
  const short = bytes.length < 2 ? -1 : bytes.readUInt8(1);
  const head = short === 126 ? 4 : short === 127 ? 10 : 2;
  if (short < 0 || bytes.length < head) return undefined;
  const length = head === 4 ? bytes.readUInt16BE(2) : head === 10 ? Number(bytes.readBigUInt64BE(2)) : short;
  if (bytes.length < head + length) return undefined;
  return {
    opcode: bytes.readUInt8(0) & 15,
    payload: Buffer.from(bytes.subarray(head, head + length)),
    size: head + length,
  };
}
