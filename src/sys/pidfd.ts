import { closeSync } from 'node:fs';
import { check, declare, signalNumber } from './libc.ts';

// Numbers of include/uapi/asm-generic/unistd.h; glibc 2.36 wraps both, but older ones do not.
const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;

const cPidfdOpen = declare<[number, number, number]>('syscall', ['long', 'int', 'uint'], 'long');
const cPidfdSendSignal = declare<[number, number, number, null, number]>(
  'syscall',
  ['long', 'int', 'int', 'void *', 'uint'],
  'long',
);

/**
 * A descriptor of the process that has this pid now; close it with `fs.closeSync`. It becomes readable
 * when the process exits (pidfd_open(2)). Close-on-exec is always set by the kernel.
 *
 * @throws SyscallError ESRCH when there is none
 */
export function pidfdOpen(pid: number): number {
  return check('pidfd_open', cPidfdOpen(SYS_PIDFD_OPEN, pid, 0), String(pid));
}

/** @throws SyscallError ESRCH when the process is gone and reaped */
export function pidfdSendSignal(fd: number, signal: NodeJS.Signals | number): void {
  check('pidfd_send_signal', cPidfdSendSignal(SYS_PIDFD_SEND_SIGNAL, fd, signalNumber(signal), null, 0));
}

/** Runs `use` with a pidfd of `pid` and closes it. @throws SyscallError ESRCH when there is no such process */
export function withPidfd<T>(pid: number, use: (fd: number) => T): T {
  const fd = pidfdOpen(pid);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}
