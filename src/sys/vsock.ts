import { randomInt } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { isErrno } from '../errors.ts';
import { connectSocket } from './connect.ts';
import { check, declare, declareBlocking } from './libc.ts';
import type { Poller } from './poller.ts';

/** Sockets between a virtual machine and its host (vsock(7)). */
const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const CLOEXEC = 0o2000000;
const NONBLOCK = 0o4000;
const CID_ANY = 0xffff_ffff;
/** Below are the hypervisor's, the loopback's and the host's addresses. */
const FIRST_GUEST = 3;
/** `struct sockaddr_vm` of linux/vm_sockets.h: family, reserved, port, CID, flags. */
const ADDRESS_SIZE = 16;
const PORT_AT = 4;
const CID_AT = 8;
/** One that is waited for, and one that its host has given up. */
const BACKLOG = 2;
const VHOST_VSOCK = '/dev/vhost-vsock';
/** _IOW(0xAF, 0x60, __u64) of linux/vhost.h. */
const VHOST_VSOCK_SET_GUEST_CID = 0x4008af60;

const cSocket = declare<[number, number, number]>('socket', ['int', 'int', 'int']);
const cBind = declare<[number, Buffer, number]>('bind', ['int', 'const void *', 'uint']);
const cListen = declare<[number, number]>('listen', ['int', 'int']);
const cIoctl = declare<[number, number, Buffer]>('ioctl', ['int', 'ulong', 'void *']);
const acceptOnPool = declareBlocking<[number, Buffer, Buffer, number]>('accept4', [
  'int',
  'void *',
  'void *',
  'int',
]);

/** The host as a guest sees it. */
export const VSOCK_HOST = 2;

/** A port of a machine's. */
export interface VsockTarget {
  /** The machine's address. */
  cid: number;
  port: number;
}

/** A guest's address that no other machine of this host has. */
export interface GuestAddress {
  cid: number;
  /** /dev/vhost-vsock with that address: it is taken for as long as this is open, here or in another process. */
  fd: number;
}

/** A blocking socket that listens at a port of this machine. @throws SyscallError EADDRINUSE; EAFNOSUPPORT without vsock */
export function listenVsock(port: number): number {
  const fd = check('socket', cSocket(AF_VSOCK, SOCK_STREAM | CLOEXEC, 0));
  try {
    check('bind', cBind(fd, socketAddress({ cid: CID_ANY, port }), ADDRESS_SIZE));
    check('listen', cListen(fd, BACKLOG));
    return fd;
  } catch (e: unknown) {
    closeSync(fd);
    throw e;
  }
}

/**
 * Waits on one of libuv's threads for a connection from that address; those from others are closed.
 *
 * @param from the only CID that may connect: what else runs on this machine, or beside it, may try
 * @returns a blocking socket
 * @throws Error when the listener cannot accept any more
 */
export async function acceptVsock(listener: number, from: number): Promise<number> {
  for (;;) {
    const [address, length] = [Buffer.alloc(ADDRESS_SIZE), Buffer.from([ADDRESS_SIZE, 0, 0, 0])];
    const fd = await acceptOnPool(listener, address, length, CLOEXEC);
    if (fd < 0) throw new Error('accept4: the vsock listener has failed');
    if (address.readUInt32LE(CID_AT) === from) return fd;
    closeSync(fd);
  }
}

/**
 * Connects to a port of a machine's.
 *
 * @returns a non-blocking socket
 * @throws SyscallError ECONNRESET when nobody listens, ENODEV when there is no such machine, ETIMEDOUT when it does not
 *   answer (after 2 s); the signal's reason
 */
export async function connectVsock(
  poller: Poller,
  target: VsockTarget,
  signal: AbortSignal,
): Promise<number> {
  const fd = check('socket', cSocket(AF_VSOCK, SOCK_STREAM | CLOEXEC | NONBLOCK, 0));
  try {
    await connectSocket(poller, fd, socketAddress(target), signal);
    return fd;
  } catch (e: unknown) {
    closeSync(fd);
    throw e;
  }
}

/**
 * Takes a free address for a guest. The kernel knows which are taken, whoever took them, so it is asked with random
 * ones.
 *
 * @throws Error of open(2): ENOENT or ENODEV on a host without vhost-vsock
 */
export function takeGuestAddress(): GuestAddress {
  const fd = openSync(VHOST_VSOCK, 'r+');
  try {
    for (;;) {
      const cid = randomInt(FIRST_GUEST, CID_ANY);
      const value = Buffer.alloc(8);
      value.writeBigUInt64LE(BigInt(cid));
      try {
        check('ioctl', cIoctl(fd, VHOST_VSOCK_SET_GUEST_CID, value), VHOST_VSOCK);
        return { cid, fd };
      } catch (e: unknown) {
        if (!isErrno(e, 'EADDRINUSE')) throw e;
      }
    }
  } catch (e: unknown) {
    closeSync(fd);
    throw e;
  }
}

function socketAddress({ cid, port }: VsockTarget): Buffer {
  const address = Buffer.alloc(ADDRESS_SIZE);
  address.writeUInt16LE(AF_VSOCK, 0);
  address.writeUInt32LE(port, PORT_AT);
  address.writeUInt32LE(cid, CID_AT);
  return address;
}
