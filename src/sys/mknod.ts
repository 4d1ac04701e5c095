import { type CPath, check, cPath, declare } from './libc.ts';

// A function of libc itself only since glibc 2.33; Debian 11's 2.31 has it in the static part.
const cMknod = declare<[string | Buffer, number, bigint]>('mknod', ['const char *', 'uint', 'uint64_t']);

/** The type bits of `mode` (inode(7)). */
export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;

/** A device number in glibc's 64-bit form (makedev(3)). */
export function makedev(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return (
    ((high & 0xfffff000n) << 32n) | ((high & 0xfffn) << 8n) | ((low & 0xffffff00n) << 12n) | (low & 0xffn)
  );
}

/**
 * Makes a FIFO or a device node; `mode` is one S_IF constant with permission bits, from which the umask
 * is taken. An overlay's whiteout is the character device 0:0.
 *
 * @throws SyscallError EEXIST; EPERM without CAP_MKNOD
 */
export function mknod(path: CPath, mode: number, major = 0, minor = 0): void {
  check('mknod', cMknod(cPath(path), mode, makedev(major, minor)), path);
}
