import { isErrno } from '../errors.ts';
import { EPOLLOUT } from './epoll.ts';
import { check, declare, SyscallError } from './libc.ts';
import type { Poller } from './poller.ts';

const SOL_SOCKET = 1;
const SO_ERROR = 4;

const cConnect = declare<[number, Buffer, number]>('connect', ['int', 'const void *', 'uint']);
const cGetsockopt = declare<[number, number, number, Buffer, Buffer]>('getsockopt', [
  'int',
  'int',
  'int',
  'void *',
  'void *',
]);

/**
 * Connects a non-blocking socket, which stays the caller's, to an address as connect(2) has it.
 *
 * @throws SyscallError; the signal's reason
 */
export async function connectSocket(
  poller: Poller,
  fd: number,
  address: Buffer,
  signal: AbortSignal,
): Promise<void> {
  try {
    check('connect', cConnect(fd, address, address.length));
  } catch (e: unknown) {
    if (!isErrno(e, 'EINPROGRESS')) throw e;
    await poller.ready(fd, EPOLLOUT, { signal });
    const [error, length] = [Buffer.alloc(4), Buffer.from([4, 0, 0, 0])];
    check('getsockopt', cGetsockopt(fd, SOL_SOCKET, SO_ERROR, error, length));
    const errno = error.readInt32LE();
    if (errno !== 0) throw new SyscallError('connect', errno);
  }
}
