import {
  DATA,
  END,
  EVENT,
  encodeFrame,
  type Frame,
  FrameReader,
  MAX_PAYLOAD_BYTES,
  ProtocolError,
  REQUEST,
  RESPONSE,
  WINDOW,
} from './frame.ts';
import { MuxStream, type StreamHandlers, type StreamLink } from './stream.ts';

/** Streams that may be open at a time on one connection. */
const MAX_STREAMS = 4096;

/** The two sides of a connection differ only in who calls whom. */
export interface MuxHandlers {
  /** A call came; answer it with {@link Mux.respond}. Streams that it names must be opened before this returns. */
  request?(id: number, message: unknown): void;
  /** The answer to a call. */
  response?(id: number, message: unknown): void;
  event?(message: unknown): void;
}

/**
 * Many streams and calls over one byte stream: pure, without any input or output of its own. Calls, answers,
 * events and credit go before data, and streams take turns, so that a busy log delays nothing else.
 *
 * The user feeds it with {@link receive}, and gives it `send`, which takes bytes and answers false when it
 * wants no more until {@link drained}.
 */
export class Mux {
  readonly #send: (bytes: Uint8Array) => boolean;
  readonly #handlers: MuxHandlers;
  readonly #reader = new FrameReader();
  readonly #streams = new Map<number, MuxStream>();
  /** With something to send, in the order of their turns. */
  readonly #ready = new Set<MuxStream>();
  #control: Uint8Array[] = [];
  #clogged = false;
  #flushing = false;
  #closed = false;

  constructor(send: (bytes: Uint8Array) => boolean, handlers: MuxHandlers) {
    this.#send = send;
    this.#handlers = handlers;
  }

  /**
   * Bytes of the other side.
   *
   * @throws ProtocolError when the other side breaks the protocol; the caller closes the connection
   */
  receive(chunk: Uint8Array): void {
    for (const frame of this.#reader.push(chunk)) {
      if (this.#closed) return;
      this.#dispatch(frame);
    }
  }

  /** `send` takes bytes again. */
  drained(): void {
    this.#clogged = false;
    this.#flush();
  }

  /** @throws RangeError when the message is over the limit of a frame */
  request(id: number, message: unknown): void {
    this.#message(REQUEST, id, message);
  }

  /** @throws RangeError when the message is over the limit of a frame */
  respond(id: number, message: unknown): void {
    this.#message(RESPONSE, id, message);
  }

  /** @throws RangeError when the message is over the limit of a frame */
  tell(message: unknown): void {
    this.#message(EVENT, 0, message);
  }

  /**
   * Opens this side's end of a stream; the other side opens its own when it reads the call that names the id.
   *
   * @throws RangeError when the id is in use, too many are open, or the connection is gone
   */
  open(id: number, handlers: StreamHandlers): MuxStream {
    if (this.#closed) throw new RangeError('the connection is closed');
    if (this.#streams.has(id)) throw new RangeError(`stream ${id} is open already`);
    if (this.#streams.size >= MAX_STREAMS) throw new RangeError(`more than ${MAX_STREAMS} streams`);
    const stream = new MuxStream(id, this.#link, handlers);
    this.#streams.set(id, stream);
    return stream;
  }

  /** The connection is gone: all streams are aborted, nothing is sent any more. Repeatable. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#control = [];
    for (const stream of [...this.#streams.values()]) stream.receiveEnd(reason || 'closed');
  }

  readonly #link: StreamLink = {
    ready: (stream) => {
      this.#ready.add(stream);
      this.#flush();
    },
    grant: (id, bytes) => {
      const payload = new Uint8Array(4);
      new DataView(payload.buffer).setUint32(0, bytes);
      this.#put({ type: WINDOW, id, payload });
    },
    reset: (id, reason) =>
      this.#put({ type: END, id, payload: new TextEncoder().encode(reason.slice(0, 1024)) }),
    over: (id) => {
      const stream = this.#streams.get(id);
      if (stream !== undefined) this.#ready.delete(stream);
      this.#streams.delete(id);
    },
  };

  #message(type: typeof REQUEST | typeof RESPONSE | typeof EVENT, id: number, message: unknown): void {
    const payload = new TextEncoder().encode(JSON.stringify(message));
    if (payload.length > MAX_PAYLOAD_BYTES) throw new RangeError(`a message of ${payload.length} bytes`);
    this.#put({ type, id, payload });
  }

  #put(frame: Frame): void {
    if (this.#closed) return;
    this.#control.push(encodeFrame(frame));
    this.#flush();
  }

  #flush(): void {
    // Handlers that are called from here may write.
    if (this.#flushing) return;
    this.#flushing = true;
    try {
      while (!this.#clogged && !this.#closed) {
        const bytes = this.#control.shift() ?? this.#nextOfStreams();
        if (bytes === undefined) return;
        this.#clogged = !this.#send(bytes);
      }
    } finally {
      this.#flushing = false;
    }
  }

  #nextOfStreams(): Uint8Array | undefined {
    for (const stream of this.#ready) {
      this.#ready.delete(stream);
      const piece = stream.take();
      if (piece === undefined) continue;
      // Behind the others, which have their turns first.
      if (piece !== 'end') this.#ready.add(stream);
      const frame =
        piece === 'end'
          ? encodeFrame({ type: END, id: stream.id, payload: new Uint8Array(0) })
          : encodeFrame({ type: DATA, id: stream.id, payload: piece });
      stream.sent();
      return frame;
    }
    return undefined;
  }

  #dispatch({ type, id, payload }: Frame): void {
    if (type === REQUEST) this.#handlers.request?.(id, parse(payload));
    else if (type === RESPONSE) this.#handlers.response?.(id, parse(payload));
    else if (type === EVENT) this.#handlers.event?.(parse(payload));
    else if (type === DATA) this.#onData(id, payload);
    else if (type === END) this.#streams.get(id)?.receiveEnd(new TextDecoder().decode(payload));
    else this.#onWindow(id, payload);
  }

  #onData(id: number, payload: Uint8Array): void {
    const stream = this.#streams.get(id);
    // What was on its way when this side ended the stream.
    if (stream === undefined) return;
    if (!stream.receive(payload)) throw new ProtocolError(`more on stream ${id} than was granted`);
  }

  #onWindow(id: number, payload: Uint8Array): void {
    if (payload.length !== 4) throw new ProtocolError(`a window frame of ${payload.length} bytes`);
    const bytes = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
    if (this.#streams.get(id)?.receiveCredit(bytes) === false)
      throw new ProtocolError(`credit past all bounds on stream ${id}`);
  }
}

function parse(payload: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
  } catch (e: unknown) {
    throw new ProtocolError('a message is no JSON', { cause: e });
  }
}
