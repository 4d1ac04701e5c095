import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { check, declare } from './libc.ts';

const CLOEXEC = 0o2000000;

const cPipe2 = declare<[Buffer, number]>('pipe2', ['void *', 'int']);

/** One end as a stream of this process, the other as a descriptor to be given to a child and then closed. */
export interface ChildPipe {
  stream: Socket;
  childFd: number;
}

/**
 * A pipe for a child's standard stream. Node itself makes socket pairs for that, and a program cannot open
 * `/dev/stdout` when that is a socket.
 *
 * @param direction seen from the child: `in` is its stdin
 * @throws SyscallError EMFILE
 */
export function childPipe(direction: 'in' | 'out'): ChildPipe {
  const fds = Buffer.alloc(8);
  check('pipe2', cPipe2(fds, CLOEXEC));
  const [readEnd, writeEnd] = [fds.readInt32LE(0), fds.readInt32LE(4)];
  const [own, childFd] = direction === 'in' ? [writeEnd, readEnd] : [readEnd, writeEnd];
  try {
    const stream = new Socket({ fd: own, readable: direction === 'out', writable: direction === 'in' });
    return { stream, childFd };
  } catch (e: unknown) {
    closeSync(own);
    closeSync(childFd);
    throw e;
  }
}
