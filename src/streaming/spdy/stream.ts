import { Duplex } from 'node:stream';
import type { Headers } from './headers.ts';

/** Bytes that a stream keeps for a slow consumer before its connection is read no further. */
const BUFFERED = 256 * 1024;

/** What a stream needs of its connection. */
export interface StreamOwner {
  /** Sends data, and with `fin` the end; `done` is called when the transport has taken it. */
  sendData(streamId: number, chunk: Buffer | undefined, fin: boolean, done: (e?: Error | null) => void): void;
  /** The stream's consumer has room again. */
  relieved(streamId: number): void;
  /** The stream is over; `reset` when not both sides had ended it. */
  forget(streamId: number, reset: boolean): void;
}

/**
 * One stream of a SPDY connection: the peer's data to read, one's own to write. `end()` closes one's own
 * half (FIN); `destroy()` before both halves are closed resets the stream. When the peer resets it, or the
 * connection goes, it closes without `end`.
 */
export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: Headers;
  readonly #owner: StreamOwner;
  #ended = false;

  constructor(owner: StreamOwner, id: number, headers: Headers) {
    super({ allowHalfOpen: true, readableHighWaterMark: BUFFERED });
    this.#owner = owner;
    this.id = id;
    this.headers = headers;
    // A reset is no failure of this side; whoever cares listens too.
    this.on('error', () => {});
  }

  /** Takes data from the connection, which keeps a piece of its own. @returns false when it should pause */
  receive(piece: Buffer): boolean {
    return this.#ended || this.destroyed || this.push(piece);
  }

  /** The peer sends no more. */
  receiveEnd(): void {
    if (this.#ended || this.destroyed) return;
    this.#ended = true;
    this.push(null);
  }

  override _read(): void {
    this.#owner.relieved(this.id);
  }

  override _write(chunk: Buffer, _encoding: string, done: (e?: Error | null) => void): void {
    this.#owner.sendData(this.id, chunk, false, done);
  }

  override _final(done: (e?: Error | null) => void): void {
    this.#owner.sendData(this.id, undefined, true, done);
  }

  override _destroy(e: Error | null, done: (e?: Error | null) => void): void {
    this.#owner.forget(this.id, !(this.#ended && this.writableFinished));
    done(e);
  }
}
