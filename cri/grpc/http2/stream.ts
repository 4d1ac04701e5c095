import { ErrorCode } from './errors.ts';
import { ReceiveWindow } from './receive-window.ts';

/** What a stream needs of its connection. */
export interface Link {
  /** How many bytes of data may be sent in a frame now, by the connection's window and its peer's pace. */
  room(): number;
  sendData(stream: number, parts: readonly Buffer[], bytes: number): void;
  sendHeaders(stream: number, block: Buffer, isEnd: boolean): void;
  sendReset(stream: number, code: ErrorCode): void;
  sendWindowUpdate(stream: number, increment: number): void;
  forget(stream: number): void;
}

/** Who is told of what a client does with its stream. */
export interface StreamListener {
  /** Bytes came. They count against the stream's window until {@link Stream.free} is called. */
  data(bytes: Buffer): void;
  /** No more will come. */
  ended(): void;
  /** The client has cancelled, or its connection is gone; nothing can be sent any more. */
  gone(): void;
}

/** Of what a client sends in a stream, bytes: the archive of an image comes in pieces of a megabyte. */
export const STREAM_WINDOW = 1024 * 1024;

/** One request and its answer on a connection (RFC 9113, 5.1), the server's side. */
export class Stream {
  readonly id: number;
  readonly #link: Link;
  readonly #received = new ReceiveWindow(STREAM_WINDOW);
  /** May become negative when the client changes its settings (RFC 9113, 6.9.2). */
  #sendWindow: number;
  #queue: Buffer[] = [];
  #trailers: Buffer | undefined;
  #waiting: (() => void)[] = [];
  #isRemoteEnded = false;
  #isOver = false;
  listener: StreamListener | undefined;

  constructor(id: number, link: Link, sendWindow: number) {
    this.id = id;
    this.#link = link;
    this.#sendWindow = sendWindow;
  }

  /** Whether no frame of this stream may be sent any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** @param block HPACK; with `isEnd` the stream has nothing else */
  sendHeaders(block: Buffer, isEnd = false): void {
    if (this.#isOver) return;
    this.#link.sendHeaders(this.id, block, isEnd);
    if (isEnd) this.#finish();
  }

  /** @returns a promise of the moment at which all is on its way, or of the stream's end */
  sendData(...parts: readonly Buffer[]): Promise<void> {
    if (this.#isOver) return Promise.resolve();
    this.#queue.push(...parts);
    this.pump();
    if (this.#queue.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Sent when all data is. */
  sendTrailers(block: Buffer): void {
    this.#trailers = block;
    this.pump();
  }

  /** Ends the stream at once. */
  reset(code: ErrorCode): void {
    if (this.#isOver) return;
    this.#link.sendReset(this.id, code);
    this.#over();
  }

  /** Tells that so many of the received bytes need no room any more. */
  free(bytes: number): void {
    const increment = this.#received.free(bytes);
    if (increment > 0 && !this.#isOver && !this.#isRemoteEnded) {
      this.#link.sendWindowUpdate(this.id, increment);
    }
  }

  /**
   * The client sent data.
   *
   * @param bytes without the padding
   * @param size with it
   * @throws ConnectionError when it is more than the window
   */
  onData(bytes: Buffer, size: number): void {
    this.#received.take(size);
    this.free(size - bytes.length);
    if (bytes.length > 0) this.listener?.data(bytes);
  }

  /** Whether the client may send no more. */
  get isRemoteEnded(): boolean {
    return this.#isRemoteEnded;
  }

  onRemoteEnd(): void {
    this.#isRemoteEnded = true;
    if (!this.#isOver) this.listener?.ended();
  }

  /** The client reset the stream, or the connection is gone. */
  onGone(): void {
    if (this.#isOver) return;
    this.#over();
    this.listener?.gone();
  }

  /** The client lets so many more bytes come, or fewer. @returns the window */
  widen(bytes: number): number {
    this.#sendWindow += bytes;
    this.pump();
    return this.#sendWindow;
  }

  /** Sends what may be sent. */
  pump(): void {
    while (this.#queue.length > 0) {
      const room = Math.min(this.#sendWindow, this.#link.room());
      if (room <= 0) return;
      const { parts, bytes } = this.#take(room);
      this.#sendWindow -= bytes;
      this.#link.sendData(this.id, parts, bytes);
    }
    for (const resolve of this.#waiting.splice(0)) resolve();
    if (this.#trailers === undefined || this.#isOver) return;
    this.#link.sendHeaders(this.id, this.#trailers, true);
    this.#finish();
  }

  #take(most: number): { parts: Buffer[]; bytes: number } {
    const parts: Buffer[] = [];
    let bytes = 0;
    while (bytes < most) {
      const next = this.#queue.shift();
      if (next === undefined) break;
      const piece = next.length > most - bytes ? next.subarray(0, most - bytes) : next;
      if (piece.length < next.length) this.#queue.unshift(next.subarray(piece.length));
      parts.push(piece);
      bytes += piece.length;
    }
    return { parts, bytes };
  }

  /** After END_STREAM of this side. */
  #finish(): void {
    // A client that is still sending is told that nobody listens (RFC 9113, 8.1).
    if (!this.#isRemoteEnded) this.#link.sendReset(this.id, ErrorCode.NO_ERROR);
    this.#over();
  }

  #over(): void {
    this.#isOver = true;
    this.#queue = [];
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.#link.forget(this.id);
  }
}
