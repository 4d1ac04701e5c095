import { check, declare } from './libc.ts';

const TIOCSWINSZ = 0x5414;

const cIoctl = declare<[number, number, Buffer]>('ioctl', ['int', 'ulong', 'void *']);

/**
 * Sets a terminal's size in characters (TIOCSWINSZ of ioctl_tty(2)); the kernel sends SIGWINCH to its
 * foreground process group.
 *
 * @param fd the pty's master or slave
 * @throws SyscallError
 */
export function setWindowSize(fd: number, { width, height }: { width: number; height: number }): void {
  const size = Buffer.alloc(8);
  size.writeUInt16LE(height, 0);
  size.writeUInt16LE(width, 2);
  check('ioctl', cIoctl(fd, TIOCSWINSZ, size));
}
