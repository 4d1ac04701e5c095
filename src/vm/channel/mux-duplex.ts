import { Duplex } from 'node:stream';
import { BerthError } from '../../errors.ts';
import type { Mux } from '../protocol/mux.ts';
import type { MuxStream } from '../protocol/stream.ts';

export interface MuxDuplexOptions {
  /** Whether this side may go on writing when the other has ended; otherwise its end is this side's, too. */
  halfOpen?: boolean;
}

/**
 * A stream of the connection as Node has them. The other side gets no more credit than what is read here;
 * what is written waits for the other side's. `destroy` ends both directions.
 */
export class MuxDuplex extends Duplex {
  readonly id: number;
  readonly #stream: MuxStream;
  #sent: (() => void) | undefined;
  /** Bytes that were pushed and not yet asked past. */
  #held = 0;

  constructor(mux: Mux, id: number, { halfOpen = false }: MuxDuplexOptions = {}) {
    super({ allowHalfOpen: halfOpen });
    this.id = id;
    this.#stream = mux.open(id, {
      data: (chunk) => {
        this.#held += chunk.length;
        if (this.push(chunk)) this._read();
      },
      end: () => this.push(null),
      drain: () => this.#settle(),
      aborted: (reason) => this.destroy(new BerthError('unavailable', reason)),
    });
    // Whoever wants to know listens; that a stream broke must not end the process.
    this.on('error', () => {});
  }

  override _read(): void {
    const bytes = this.#held;
    this.#held = 0;
    if (bytes > 0) this.#stream.consumed(bytes);
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: () => void): void {
    this.#sent = done;
    if (chunk.length === 0) this.#settle();
    this.#stream.write(chunk);
  }

  override _final(done: () => void): void {
    this.#sent = done;
    this.#stream.end();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#stream.reset(error?.message ?? 'closed');
    this.#settle();
    done(error);
  }

  #settle(): void {
    const done = this.#sent;
    this.#sent = undefined;
    done?.();
  }
}
