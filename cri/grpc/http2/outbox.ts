import type { Socket } from 'node:net';

/** What is gathered before it is written, bytes. */
const BATCH_BYTES = 64 * 1024;
/** Up to this size one copy is cheaper than a list of buffers for the kernel. */
const COPY_BYTES = 8 * 1024;

/**
 * Gathers the frames of one turn of the event loop: an answer's headers, message and trailers then take one
 * system call.
 */
export class Outbox {
  readonly #socket: Socket;
  #batch: Buffer[] = [];
  #bytes = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Whether the peer does not keep up; the socket's `drain` tells the end of it. */
  get isCongested(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** Bytes that wait for the peer. */
  get backlog(): number {
    return this.#socket.writableLength + this.#bytes;
  }

  write(...buffers: readonly Buffer[]): void {
    if (this.#bytes === 0) process.nextTick(() => this.flush());
    for (const buffer of buffers) {
      this.#batch.push(buffer);
      this.#bytes += buffer.length;
    }
    if (this.#bytes >= BATCH_BYTES) this.flush();
  }

  flush(): void {
    const [batch, bytes] = [this.#batch, this.#bytes];
    if (bytes === 0) return;
    this.#batch = [];
    this.#bytes = 0;
    if (this.#socket.destroyed) return;
    if (bytes <= COPY_BYTES) {
      this.#socket.write(Buffer.concat(batch, bytes));
      return;
    }
    this.#socket.cork();
    for (const buffer of batch) this.#socket.write(buffer);
    this.#socket.uncork();
  }
}
