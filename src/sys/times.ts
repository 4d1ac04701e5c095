import { type CPath, check, cPath, declare } from './libc.ts';

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const SECOND = 1_000_000_000n;

const cUtimensat = declare<[number, string | Buffer, Buffer, number]>('utimensat', [
  'int',
  'const char *',
  'const void *',
  'int',
]);

/**
 * Sets access and modification time, in nanoseconds since 1970 (may be negative), of a file or of a
 * symlink itself: Node's lutimes rounds them through a double.
 *
 * @throws SyscallError
 */
export function utimensat(path: CPath, atime: bigint, mtime: bigint): void {
  const timespecs = Buffer.alloc(32);
  for (const [i, time] of [atime, mtime].entries()) {
    // tv_nsec must be 0 … 999999999, also before 1970.
    const nanoseconds = ((time % SECOND) + SECOND) % SECOND;
    timespecs.writeBigInt64LE((time - nanoseconds) / SECOND, i * 16);
    timespecs.writeBigInt64LE(nanoseconds, i * 16 + 8);
  }
  check('utimensat', cUtimensat(AT_FDCWD, cPath(path), timespecs, AT_SYMLINK_NOFOLLOW), path);
}
