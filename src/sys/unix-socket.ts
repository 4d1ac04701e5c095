import { closeSync, openSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { EPOLLIN } from './epoll.ts';
import { addressOf, check, declare } from './libc.ts';
import type { Poller } from './poller.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const CLOEXEC = 0o2000000;
const NONBLOCK = 0o4000;
const O_PATH = 0o10000000;
/** `sun_path` of unix(7), with its NUL. */
const SUN_PATH = 108;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;
const F_GETFL = 3;
const F_SETFL = 4;

const cSocket = declare<[number, number, number]>('socket', ['int', 'int', 'int']);
const cBind = declare<[number, Buffer, number]>('bind', ['int', 'const void *', 'uint']);
const cListen = declare<[number, number]>('listen', ['int', 'int']);
const cAccept4 = declare<[number, null, null, number]>('accept4', ['int', 'void *', 'void *', 'int']);
const cConnect = declare<[number, Buffer, number]>('connect', ['int', 'const void *', 'uint']);
const cRecvmsg = declare<[number, Buffer, number]>('recvmsg', ['int', 'void *', 'int'], 'long');
const cFcntl = declare<[number, number, number]>('fcntl', ['int', 'int', 'int']);

/**
 * Connects to a SOCK_SEQPACKET socket of any path length; the descriptor is non-blocking.
 *
 * @throws SyscallError ENOENT, ECONNREFUSED when nobody listens, EAGAIN when its backlog is full
 */
export function connectSeqpacket(path: string): number {
  // A path may be longer than an address holds; through /proc only the last part of it counts.
  const dirFd = openSync(dirname(path), O_PATH);
  try {
    const fd = check('socket', cSocket(AF_UNIX, SOCK_SEQPACKET | CLOEXEC | NONBLOCK, 0));
    try {
      const address = unixAddress(`/proc/self/fd/${dirFd}/${basename(path)}`);
      check('connect', cConnect(fd, address, address.length), path);
      return fd;
    } catch (e: unknown) {
      closeSync(fd);
      throw e;
    }
  } finally {
    closeSync(dirFd);
  }
}

/**
 * A socket at `path` over which an OCI runtime hands the master of a new pty (`--console-socket`), and
 * which this waits for. The path is at most 107 bytes long; the file is for the caller to remove.
 */
export class ConsoleSocket {
  readonly #fd: number;
  readonly #poller: Pick<Poller, 'ready' | 'remove'>;
  #closed = false;

  /** @throws SyscallError; RangeError for a path that is too long */
  constructor(poller: Pick<Poller, 'ready' | 'remove'>, path: string) {
    this.#poller = poller;
    this.#fd = listenStream(path, NONBLOCK);
  }

  /**
   * The pty master, non-blocking and owned by the caller.
   *
   * @throws the signal's reason; SyscallError EBADMSG when no descriptor came
   */
  async receive(signal: AbortSignal): Promise<number> {
    await this.#poller.ready(this.#fd, EPOLLIN, { signal });
    const connection = check('accept4', cAccept4(this.#fd, null, null, CLOEXEC | NONBLOCK));
    try {
      await this.#poller.ready(connection, EPOLLIN, { signal });
      const fd = receiveFd(connection);
      check('fcntl', cFcntl(fd, F_SETFL, check('fcntl', cFcntl(fd, F_GETFL, 0)) | NONBLOCK));
      return fd;
    } finally {
      closeSync(connection);
    }
  }

  /** Repeatable. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.remove(this.#fd);
    closeSync(this.#fd);
  }
}

/**
 * A listening stream socket, blocking, for a child that accepts on a descriptor that it is given: whoever
 * connects before the child is ready waits, and nobody has to ask whether the file is there yet.
 *
 * @param path at most 107 bytes; the file is for the caller to remove
 * @throws SyscallError EADDRINUSE; RangeError for a path that is too long
 */
export function listenForChild(path: string): number {
  return listenStream(path, 0);
}

function listenStream(path: string, flags: number): number {
  const fd = check('socket', cSocket(AF_UNIX, SOCK_STREAM | CLOEXEC | flags, 0));
  try {
    const address = unixAddress(path);
    check('bind', cBind(fd, address, address.length), path);
    check('listen', cListen(fd, 1), path);
    return fd;
  } catch (e: unknown) {
    closeSync(fd);
    throw e;
  }
}

/** Receives one descriptor (cmsg(3) SCM_RIGHTS); what text comes with it is dropped. */
function receiveFd(socket: number): number {
  const text = Buffer.alloc(4096);
  const iovec = Buffer.alloc(16);
  iovec.writeBigUInt64LE(addressOf(text), 0);
  iovec.writeBigUInt64LE(BigInt(text.length), 8);
  const control = Buffer.alloc(24); // CMSG_SPACE of one int.
  const message = Buffer.alloc(56); // struct msghdr of 64-bit Linux.
  message.writeBigUInt64LE(addressOf(iovec), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(addressOf(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  check('recvmsg', cRecvmsg(socket, message, MSG_CMSG_CLOEXEC));
  const came =
    message.readBigUInt64LE(40) >= 20n &&
    control.readInt32LE(8) === SOL_SOCKET &&
    control.readInt32LE(12) === SCM_RIGHTS;
  if (!came) throw Object.assign(new Error('console socket: no descriptor came'), { code: 'EBADMSG' });
  return control.readInt32LE(16);
}

function unixAddress(path: string): Buffer {
  const bytes = Buffer.from(path);
  if (bytes.length >= SUN_PATH)
    throw new RangeError(`a socket's path is at most ${SUN_PATH - 1} bytes: ${path}`);
  const address = Buffer.alloc(2 + bytes.length + 1);
  address.writeUInt16LE(AF_UNIX);
  bytes.copy(address, 2);
  return address;
}
