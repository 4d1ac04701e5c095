import { type CPath, check, cPath, declare } from './libc.ts';

const cMknod = declare<[string | Buffer, number, number]>('mknod', ['const char *', 'uint', 'uint64_t']);

/** The type bits of `mode` (inode(7)). */
export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;

/** The kernel's device number: 12 bits of major, 20 of minor (`new_encode_dev`, include/linux/kdev_t.h). */
export function makedev(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

/**
 * Makes a FIFO or a device node; `mode` is one S_IF constant with permission bits, from which the umask
 * is taken. An overlay's whiteout is the character device 0.
 *
 * @throws SyscallError EEXIST; EPERM without CAP_MKNOD
 */
export function mknod(path: CPath, mode: number, device: number): void {
  check('mknod', cMknod(cPath(path), mode, device), path);
}
