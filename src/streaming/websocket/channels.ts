import { Duplex, Readable, Writable } from 'node:stream';
import type { WebSocket } from 'ws';

/** First byte of a message by which a client of v5 ends a channel; the second names it. */
const CLOSE_CHANNEL = 255;
const ZERO = '0'.charCodeAt(0);
/** Bytes that a channel keeps for a slow consumer before the socket is read no further. */
const BUFFERED = 256 * 1024;

export interface ChannelOptions {
  /** Messages are text: the channel as a digit, then base64. */
  base64: boolean;
  /** The client can end a channel (v5). */
  closable: boolean;
}

/**
 * Kubernetes' channels over WebSocket: the first byte of each message is the channel's number. All channels
 * share the socket's reading: while one is full none is read.
 */
export class Channels {
  /** Aborted when the socket is closed, however. */
  readonly closed: AbortSignal;
  readonly #closing = new AbortController();
  readonly #socket: WebSocket;
  readonly #options: ChannelOptions;
  readonly #inputs = new Map<number, Readable>();
  readonly #outputs: Writable[] = [];
  readonly #congested = new Set<number>();

  constructor(socket: WebSocket, options: ChannelOptions) {
    this.#socket = socket;
    this.#options = options;
    this.closed = this.#closing.signal;
    socket.on('message', (message: Buffer) => this.#receive(message));
    socket.on('error', () => {});
    socket.on('close', () => this.#over());
  }

  /** What the client sends on a channel. */
  input(channel: number): Readable {
    const input = new Readable({
      highWaterMark: BUFFERED,
      read: () => this.#relieve(channel),
      destroy: (e, done) => {
        this.#inputs.delete(channel);
        this.#relieve(channel);
        done(e);
      },
    });
    input.on('error', () => {});
    this.#inputs.set(channel, input);
    return input;
  }

  /** What is sent to the client on a channel. Its end cannot be told but by closing the socket. */
  output(channel: number): Writable {
    const output = new Writable({
      write: (chunk: Buffer, _encoding, done) => this.send(channel, chunk, done),
    });
    output.on('error', () => {});
    this.#outputs.push(output);
    return output;
  }

  /** Both at once. Halves cannot end one by one: the client's does with this side's, or with the socket. */
  duplex(channel: number): Duplex {
    const output = this.output(channel);
    output.once('finish', () => this.#end(channel));
    const duplex = Duplex.from({ readable: this.input(channel), writable: output });
    duplex.on('error', () => {});
    return duplex;
  }

  /** Sends one message; an empty one tells a client that the session is there. */
  send(channel: number, data: Buffer, done: (e?: Error | null) => void = () => {}): void {
    if (this.#socket.readyState !== this.#socket.OPEN) {
      done(new Error('the client has gone'));
      return;
    }
    const message = this.#options.base64
      ? String.fromCharCode(ZERO + channel) + data.toString('base64')
      : Buffer.concat([Buffer.from([channel]), data]);
    this.#socket.send(message, done);
  }

  /** Closes the socket in order. */
  close(): void {
    // ws gives a client 30 s to answer the close frame.
    this.#socket.close(1000);
  }

  #receive(message: Buffer): void {
    if (message.length === 0) return;
    const first = message.readUInt8(0);
    if (this.#options.closable && first === CLOSE_CHANNEL) {
      if (message.length === 2) this.#end(message.readUInt8(1));
      else this.#socket.close(1002);
      return;
    }
    const channel = this.#options.base64 ? first - ZERO : first;
    const input = this.#inputs.get(channel);
    if (input === undefined || input.readableEnded || message.length === 1) return;
    const data = this.#options.base64
      ? Buffer.from(message.toString('latin1', 1), 'base64')
      : message.subarray(1);
    if (input.push(data)) return;
    this.#congested.add(channel);
    this.#socket.pause();
  }

  #end(channel: number): void {
    const input = this.#inputs.get(channel);
    this.#inputs.delete(channel);
    input?.push(null);
  }

  #relieve(channel: number): void {
    if (this.#congested.delete(channel) && this.#congested.size === 0 && this.#socket.isPaused)
      this.#socket.resume();
  }

  #over(): void {
    this.#closing.abort(new Error('the client has gone'));
    for (const stream of [...this.#inputs.values(), ...this.#outputs]) stream.destroy();
  }
}
