import { closeSync } from 'node:fs';
import { Duplex } from 'node:stream';
import { isErrno } from '../errors.ts';
import { EPOLLIN, EPOLLOUT } from './epoll.ts';
import { check, declare } from './libc.ts';
import type { Poller } from './poller.ts';

const SHUT_WR = 1;
const SCRATCH = 64 * 1024;
/** Reads in one go before other work of the event loop gets its turn. */
const MAX_READS = 32;

const cRead = declare<[number, Buffer, number]>('read', ['int', 'void *', 'size_t'], 'long');
const cWrite = declare<[number, Buffer, number]>('write', ['int', 'const void *', 'size_t'], 'long');
const cShutdown = declare<[number, number]>('shutdown', ['int', 'int']);

export interface PolledStreamOptions {
  /** Bytes; each write(2) takes at most so many. A SOCK_SEQPACKET reader may cut longer ones. */
  maxWrite?: number;
  /** SOCK_SEQPACKET: each `data` is one packet, and the end of writing is told with shutdown(2). */
  packets?: boolean;
}

/**
 * A stream over a descriptor that Node's own streams cannot serve: a pty master (whose writes libuv makes
 * blocking: a program that does not read its input would stop the event loop) or a SOCK_SEQPACKET socket.
 * It owns the descriptor, which must be non-blocking.
 *
 * A pty whose last slave is closed reads as EIO: that is its end.
 */
export class PolledStream extends Duplex {
  readonly #poller: Poller;
  readonly #maxWrite: number;
  readonly #packets: boolean;
  #fd: number;
  #wanted = 0;
  #pending: { chunk: Buffer; done: (e?: Error | null) => void } | undefined;

  constructor(poller: Poller, fd: number, { maxWrite = SCRATCH, packets = false }: PolledStreamOptions = {}) {
    super({ readableObjectMode: packets, allowHalfOpen: true, emitClose: true });
    this.#poller = poller;
    this.#fd = fd;
    this.#maxWrite = maxWrite;
    this.#packets = packets;
  }

  /** The descriptor, for ioctl(2); -1 when closed. */
  get fd(): number {
    return this.#fd;
  }

  override _read(): void {
    this.#want(this.#wanted | EPOLLIN);
  }

  override _write(chunk: Buffer, _encoding: string, done: (e?: Error | null) => void): void {
    this.#pending = { chunk, done };
    this.#writeSome();
  }

  override _final(done: (e?: Error | null) => void): void {
    if (this.#packets && this.#fd >= 0) cShutdown(this.#fd, SHUT_WR);
    done();
  }

  override _destroy(e: Error | null, done: (e?: Error | null) => void): void {
    this.#want(0);
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) closeSync(fd);
    const pending = this.#pending;
    this.#pending = undefined;
    pending?.done(e);
    done(e);
  }

  /** Only what is wanted is watched: a hang-up is always reported, and would be for ever. */
  #want(events: number): void {
    if (events === this.#wanted || this.#fd < 0) return;
    if (this.#wanted !== 0) this.#poller.remove(this.#fd);
    this.#wanted = events;
    if (events !== 0) this.#poller.add(this.#fd, events, () => this.#ready());
  }

  #ready(): void {
    if ((this.#wanted & EPOLLIN) !== 0) this.#readSome();
    if (this.#pending !== undefined) this.#writeSome();
  }

  #readSome(): void {
    for (let i = 0; i < MAX_READS && this.#fd >= 0; i++) {
      const buffer = Buffer.allocUnsafe(this.#packets ? SCRATCH : SCRATCH / 8);
      let size: number;
      try {
        size = check('read', cRead(this.#fd, buffer, buffer.length));
      } catch (e: unknown) {
        if (isErrno(e, 'EAGAIN', 'EINTR')) return;
        if (isErrno(e, 'EIO', 'ECONNRESET')) this.#end();
        else this.destroy(e as Error);
        return;
      }
      if (size === 0) {
        this.#end();
        return;
      }
      if (!this.push(Buffer.from(buffer.subarray(0, size)))) {
        this.#want(this.#wanted & ~EPOLLIN);
        return;
      }
    }
  }

  #end(): void {
    this.#want(this.#wanted & ~EPOLLIN);
    this.push(null);
  }

  #writeSome(): void {
    const pending = this.#pending;
    if (pending === undefined || this.#fd < 0) return;
    try {
      while (pending.chunk.length > 0) {
        const part = pending.chunk.subarray(0, this.#maxWrite);
        const written = check('write', cWrite(this.#fd, part, part.length));
        pending.chunk = pending.chunk.subarray(written);
      }
    } catch (e: unknown) {
      if (isErrno(e, 'EAGAIN', 'EINTR')) this.#want(this.#wanted | EPOLLOUT);
      else this.#written(e as Error);
      return;
    }
    this.#written(null);
  }

  #written(e: Error | null): void {
    const done = this.#pending?.done;
    this.#pending = undefined;
    this.#want(this.#wanted & ~EPOLLOUT);
    done?.(e);
  }
}
