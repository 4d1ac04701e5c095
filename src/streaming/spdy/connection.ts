import type { Duplex } from 'node:stream';
import { SpdyError } from './error.ts';
import {
  controlFrame,
  dataHeader,
  FLAG_FIN,
  FrameParser,
  GOAWAY,
  GOAWAY_OK,
  GOAWAY_PROTOCOL_ERROR,
  HEADERS,
  numbersFrame,
  PING,
  RST_CANCEL,
  RST_INVALID_STREAM,
  RST_REFUSED,
  RST_STREAM,
  SYN_REPLY,
  SYN_STREAM,
} from './frames.ts';
import { HeaderReader, type Headers, HeaderWriter } from './headers.ts';
import { SpdyStream, type StreamOwner } from './stream.ts';

/** Streams open at once; of port-forwarding each connection takes two. */
const MAX_STREAMS = 1000;
/** Room that a data frame's payload gets; larger chunks go in several frames, so that streams take turns. */
const MAX_FRAME = 64 * 1024;
/** How long a peer may take to close its side after this one has, milliseconds. */
const LINGER_MS = 5_000;
const ID_MASK = 0x7fff_ffff;

/** Whether a stream that the peer opens is wanted; what is not is refused. */
export type StreamListener = (stream: SpdyStream) => boolean;

/**
 * One side of a SPDY/3.1 connection, as far as Kubernetes' streaming uses it: streams that the client opens.
 *
 * There is no flow control per stream: neither the kubelet's nor kubectl's library has it. A slow consumer
 * instead stops the reading of the whole connection once it has some data waiting, as theirs do.
 */
export class SpdyConnection {
  /** Aborted when the connection is over, however it ended. */
  readonly closed: AbortSignal;
  readonly #closing = new AbortController();
  readonly #transport: Duplex;
  readonly #onStream: StreamListener | undefined;
  readonly #reader = new HeaderReader();
  readonly #writer = new HeaderWriter();
  readonly #streams = new Map<number, SpdyStream>();
  readonly #congested = new Set<number>();
  #lastPeerId = 0;
  #nextId = 1;
  #goneAway = false;

  /**
   * @param onStream makes this the server's side; without it this is the client's, which opens streams
   */
  constructor(transport: Duplex, onStream?: StreamListener) {
    this.#transport = transport;
    this.#onStream = onStream;
    this.closed = this.#closing.signal;
    const parser = new FrameParser({
      control: (type, flags, payload) => this.#control(type, flags, payload),
      data: (streamId, piece, fin) => this.#data(streamId, piece, fin),
    });
    transport.on('data', (chunk: Buffer) => {
      try {
        parser.push(chunk);
      } catch (e: unknown) {
        this.#fail(e);
      }
    });
    // A peer that closes its half of the transport has gone: SPDY ends streams one by one.
    transport.on('end', () => transport.destroy());
    transport.on('error', () => {});
    transport.on('close', () => this.#over());
  }

  /** Opens a stream (as the client); it can be written at once. */
  open(headers: Headers): SpdyStream {
    const id = this.#nextId;
    this.#nextId += 2;
    const stream = new SpdyStream(this.#owner, id, headers);
    this.#streams.set(id, stream);
    const numbers = Buffer.alloc(10);
    numbers.writeUInt32BE(id, 0);
    this.#send(controlFrame(SYN_STREAM, 0, Buffer.concat([numbers, this.#writer.write(headers)])));
    return stream;
  }

  /**
   * Ends the connection in order: sends what was written, says goodbye, and closes. Streams that are still
   * open are reset. Repeatable.
   */
  close(): void {
    this.#goodbye(GOAWAY_OK);
    this.#end();
  }

  /** Ends the connection at once. Repeatable. */
  destroy(): void {
    this.#transport.destroy();
  }

  readonly #owner: StreamOwner = {
    sendData: (id, chunk, fin, done) => this.#sendData(id, chunk, fin, done),
    relieved: (id) => this.#relieve(id),
    forget: (id, reset) => {
      if (!this.#streams.delete(id)) return;
      this.#relieve(id);
      if (reset) this.#send(numbersFrame(RST_STREAM, id, RST_CANCEL));
    },
  };

  #control(type: number, flags: number, payload: Buffer): void {
    const id = payload.readUInt32BE(0) & ID_MASK;
    switch (type) {
      case SYN_STREAM:
        this.#synStream(id, flags, payload);
        return;
      case SYN_REPLY:
      case HEADERS:
        // Compression has a state, so headers are read even if nobody wants them.
        this.#reader.read(payload.subarray(4));
        if ((flags & FLAG_FIN) !== 0) this.#streams.get(id)?.receiveEnd();
        return;
      case RST_STREAM: {
        const stream = this.#streams.get(id);
        this.#streams.delete(id);
        this.#relieve(id);
        stream?.destroy();
        return;
      }
      case PING:
        // Odd numbers are the client's pings, even ones the server's; one's own come back.
        if ((payload.readUInt32BE(0) & 1) === (this.#onStream === undefined ? 0 : 1))
          this.#send(controlFrame(PING, 0, payload));
        return;
      case GOAWAY:
        this.#goneAway = true;
        return;
    }
  }

  #synStream(id: number, flags: number, payload: Buffer): void {
    const headers = this.#reader.read(payload.subarray(10));
    if (this.#onStream === undefined) throw new SpdyError('the server opens a stream');
    if ((id & 1) === 0 || id <= this.#lastPeerId) throw new SpdyError(`stream ${id} comes out of turn`);
    this.#lastPeerId = id;
    if (this.#goneAway || this.#streams.size >= MAX_STREAMS) {
      this.#send(numbersFrame(RST_STREAM, id, RST_REFUSED));
      return;
    }
    const stream = new SpdyStream(this.#owner, id, headers);
    this.#streams.set(id, stream);
    // First of all the reply: clients drop data of a stream that has none.
    this.#send(controlFrame(SYN_REPLY, 0, Buffer.concat([numbered(id), this.#writer.write(NO_HEADERS)])));
    if ((flags & FLAG_FIN) !== 0) stream.receiveEnd();
    if (!this.#onStream(stream)) stream.destroy();
  }

  #data(id: number, piece: Buffer, fin: boolean): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      // Of a stream that is over something may still be on its way; of one that never was, nothing.
      if (this.#onStream !== undefined && id > this.#lastPeerId && piece.length > 0)
        this.#send(numbersFrame(RST_STREAM, id, RST_INVALID_STREAM));
      return;
    }
    if (piece.length > 0 && !stream.receive(owned(piece))) {
      this.#congested.add(id);
      this.#transport.pause();
    }
    if (fin) stream.receiveEnd();
  }

  #relieve(id: number): void {
    if (this.#congested.delete(id) && this.#congested.size === 0) this.#transport.resume();
  }

  #sendData(id: number, chunk: Buffer | undefined, fin: boolean, done: (e?: Error | null) => void): void {
    if (!this.#transport.writable || !this.#streams.has(id)) {
      done(new SpdyError('the stream is over'));
      return;
    }
    const whole = chunk ?? Buffer.alloc(0);
    this.#transport.cork();
    let at = 0;
    do {
      const piece = whole.subarray(at, at + MAX_FRAME);
      at += piece.length;
      const last = at === whole.length;
      this.#transport.write(dataHeader(id, piece.length, fin && last));
      // Also when it is empty: the transport calls back in order.
      this.#transport.write(piece, last ? done : undefined);
    } while (at < whole.length);
    this.#transport.uncork();
  }

  #send(frame: Buffer): void {
    if (this.#transport.writable) this.#transport.write(frame);
  }

  #goodbye(status: number): void {
    if (!this.#goneAway) this.#send(numbersFrame(GOAWAY, this.#lastPeerId, status));
    this.#goneAway = true;
  }

  #fail(e: unknown): void {
    this.#transport.removeAllListeners('data');
    this.#closing.abort(e);
    this.#over();
    this.#goodbye(GOAWAY_PROTOCOL_ERROR);
    this.#end();
  }

  /** The peer gets what was written, and then a while to go by itself. */
  #end(): void {
    this.#transport.end(() => {
      const linger = setTimeout(() => this.#transport.destroy(), LINGER_MS);
      this.#transport.once('close', () => clearTimeout(linger));
    });
  }

  #over(): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#congested.clear();
    this.#closing.abort(new SpdyError('the connection is over'));
    for (const stream of streams) stream.destroy();
  }
}

const NO_HEADERS: Headers = new Map();

/** A small piece that waits must not keep the whole of the chunk that it came in. */
function owned(piece: Buffer): Buffer {
  if (piece.length * 2 >= piece.buffer.byteLength) return piece;
  const copy = Buffer.allocUnsafeSlow(piece.length);
  piece.copy(copy);
  return copy;
}

function numbered(id: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(id);
  return bytes;
}
