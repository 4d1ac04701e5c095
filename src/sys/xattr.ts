import { isErrno } from '../errors.ts';
import { type CPath, check, cPath, declare } from './libc.ts';

// All of these act on a symlink itself, never on what it points to (lsetxattr(2)).
const cLsetxattr = declare<[string | Buffer, string | Buffer, Buffer, number, number]>('lsetxattr', [
  'const char *',
  'const char *',
  'const void *',
  'size_t',
  'int',
]);
const cLgetxattr = declare<[string | Buffer, string | Buffer, Buffer | null, number]>(
  'lgetxattr',
  ['const char *', 'const char *', 'void *', 'size_t'],
  'long',
);
const cLlistxattr = declare<[string | Buffer, Buffer | null, number]>(
  'llistxattr',
  ['const char *', 'void *', 'size_t'],
  'long',
);

/** The most the kernel keeps in one value and in one file's list of names (`include/uapi/linux/limits.h`). */
const XATTR_MAX = 65536;

/** Sets or replaces an extended attribute. @throws SyscallError ENOTSUP, EPERM, ENOSPC … */
export function lsetxattr(path: CPath, name: string, value: Buffer): void {
  check('lsetxattr', cLsetxattr(cPath(path), name, value, value.length, 0), path);
}

/** The value of an extended attribute, undefined when it is not set. @throws SyscallError ENOTSUP, ENOENT … */
export function lgetxattr(path: CPath, name: string): Buffer | undefined {
  const value = Buffer.alloc(XATTR_MAX);
  try {
    const size = check('lgetxattr', cLgetxattr(cPath(path), name, value, value.length), path);
    return Buffer.from(value.subarray(0, size));
  } catch (e: unknown) {
    if (isErrno(e, 'ENODATA')) return undefined;
    throw e;
  }
}

/** The names of a file's extended attributes. @throws SyscallError ENOTSUP, ENOENT … */
export function llistxattr(path: CPath): string[] {
  const names = Buffer.alloc(XATTR_MAX);
  const size = check('llistxattr', cLlistxattr(cPath(path), names, names.length), path);
  return names
    .toString('utf8', 0, size)
    .split('\0')
    .filter((name) => name !== '');
}
