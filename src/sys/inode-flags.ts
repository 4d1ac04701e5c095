import { closeSync, openSync } from 'node:fs';
import { isErrno } from '../errors.ts';
import { check, declare } from './libc.ts';

const cIoctl = declare<[number, number, Buffer]>('ioctl', ['int', 'ulong', 'void *']);

// include/uapi/linux/fs.h; the numbers of 64-bit machines.
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_TOPDIR_FL = 0x00020000;

/**
 * Tells ext2, ext3 and ext4 that the directories in this one have nothing to do with each other (chattr(1), "T"),
 * so that each gets a block group of its own. Other file systems have no such mark, and nothing happens.
 *
 * @throws SyscallError EACCES, EROFS …
 */
export function markTopDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    // An int, whatever the numbers above say of a long.
    const flags = Buffer.alloc(8);
    check('ioctl', cIoctl(fd, FS_IOC_GETFLAGS, flags), path);
    const value = flags.readUInt32LE();
    if ((value & FS_TOPDIR_FL) !== 0) return;
    flags.writeUInt32LE((value | FS_TOPDIR_FL) >>> 0);
    check('ioctl', cIoctl(fd, FS_IOC_SETFLAGS, flags), path);
  } catch (e: unknown) {
    if (!isErrno(e, 'ENOTTY', 'ENOTSUP', 'EOPNOTSUPP', 'EINVAL', 'ENOSYS')) throw e;
  } finally {
    closeSync(fd);
  }
}
