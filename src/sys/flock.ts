import { isErrno } from '../errors.ts';
import { check, declare } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

const cFlock = declare<[number, number]>('flock', ['int', 'int']);

/**
 * Takes the exclusive lock of an open file without waiting; false when another holds it. The kernel drops
 * it when the last copy of the descriptor is closed, so also when the process is killed (flock(2)).
 *
 * @throws SyscallError
 */
export function tryLock(fd: number): boolean {
  try {
    check('flock', cFlock(fd, LOCK_EX | LOCK_NB));
    return true;
  } catch (e: unknown) {
    if (isErrno(e, 'EAGAIN')) return false;
    throw e;
  }
}
