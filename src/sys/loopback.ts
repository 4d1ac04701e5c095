import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { connectSocket } from './connect.ts';
import { check, declare } from './libc.ts';
import { withNamespace } from './namespaces.ts';
import type { Poller } from './poller.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 1 | 0o2000000 | 0o4000;

const cSocket = declare<[number, number, number]>('socket', ['int', 'int', 'int']);

/** Where to connect. */
export interface LoopbackTarget {
  /** A network namespace (a pin or `/proc/<pid>/ns/net`); undefined is this process's own. */
  netns: string | undefined;
  family: 4 | 6;
  port: number;
}

/**
 * Connects to a TCP port of a network namespace's loopback, without a helper process: a socket stays in the
 * namespace in which it was made, whoever uses it.
 *
 * @returns the connected socket; its halves end one by one
 * @throws SyscallError ECONNREFUSED when nothing listens, EAFNOSUPPORT or EADDRNOTAVAIL without IPv6; the
 *   signal's reason
 */
export async function connectLoopback(
  poller: Poller,
  { netns, family, port }: LoopbackTarget,
  signal: AbortSignal,
): Promise<Socket> {
  const make = () =>
    check('socket', cSocket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM_CLOEXEC_NONBLOCK, 0));
  const fd = netns === undefined ? make() : withNamespace(netns, 'net', make);
  try {
    await connectSocket(poller, fd, loopbackAddress(family, port), signal);
    return new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
  } catch (e: unknown) {
    closeSync(fd);
    throw e;
  }
}

/** A `sockaddr_in` of 127.0.0.1 or a `sockaddr_in6` of ::1 (ip(7), ipv6(7)). */
function loopbackAddress(family: 4 | 6, port: number): Buffer {
  const address = Buffer.alloc(family === 4 ? 16 : 28);
  address.writeUInt16LE(family === 4 ? AF_INET : AF_INET6, 0);
  address.writeUInt16BE(port, 2);
  if (family === 4) address.writeUInt32BE(0x7f000001, 4);
  else address.writeUInt8(1, 8 + 15);
  return address;
}
