import { close, open, read, write } from 'node:fs';
import { Duplex } from 'node:stream';

/** virtio-serial hands over one page at a time; a vsock takes more. */
const READ_BYTES = 64 * 1024;
/** How often a host that has not opened its end yet is looked for, milliseconds. */
const LOOK_MS = 10;

/**
 * A character device or a blocking socket as a stream, read and written by blocking calls on two of libuv's threads: a
 * virtio-serial port cannot be polled without turning in circles while the host's end is closed, but a write to it waits
 * until that is opened; and Node has no stream for a vsock.
 */
export class PortStream extends Duplex {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);
  /** The host has been heard of. */
  #isJoined = false;

  /** @param fd is owned from now on */
  constructor(fd: number) {
    super({ readableHighWaterMark: READ_BYTES, writableHighWaterMark: READ_BYTES });
    this.#fd = fd;
  }

  /** @throws Error of open(2): ENOENT when the machine has no such port */
  static async open(path: string): Promise<PortStream> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    open(path, 'r+', (e, fd) => (e ? reject(e) : resolve(fd)));
    return new PortStream(await promise);
  }

  override _read(): void {
    read(this.#fd, this.#buffer, 0, READ_BYTES, null, (e, bytes) => {
      if (e) return void this.destroy(e);
      // The host's end is closed: not open yet, or not any more.
      if (bytes === 0 && !this.#isJoined) return void setTimeout(() => this._read(), LOOK_MS);
      this.#isJoined = true;
      this.push(bytes === 0 ? null : Buffer.from(this.#buffer.subarray(0, bytes)));
    });
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (e?: Error | null) => void): void {
    write(this.#fd, chunk, (e, bytes) => {
      if (e || bytes === chunk.length) done(e);
      else this._write(chunk.subarray(bytes), _encoding, done);
    });
  }

  override _destroy(error: Error | null, done: (e: Error | null) => void): void {
    close(this.#fd, () => done(error));
  }
}
