import { isErrno } from '../errors.ts';
import { check, declare } from './libc.ts';

const cKlogctl = declare<[number, Buffer, number]>('klogctl', ['int', 'void *', 'int']);

/** SYSLOG_ACTION_READ_ALL of syslog(2): a copy, which leaves the log to its other readers. */
const READ_ALL = 3;
/** The OOM killer's report of a node with a thousand processes fits several times. */
const NEWEST_BYTES = 256 * 1024;

/**
 * The newest lines of the kernel's log, each as `<priority>[seconds since boot] text`; empty where this
 * process may not read it (no CAP_SYSLOG).
 */
export function readKernelLog(): string {
  const buffer = Buffer.alloc(NEWEST_BYTES);
  try {
    const size = check('klogctl', cKlogctl(READ_ALL, buffer, buffer.length));
    return buffer.toString('latin1', 0, size);
  } catch (e: unknown) {
    if (isErrno(e, 'EPERM', 'ENOSYS')) return '';
    throw e;
  }
}
