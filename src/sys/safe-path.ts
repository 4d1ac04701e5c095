import { closeSync, constants, fstatSync, openSync, readlinkSync, realpathSync } from 'node:fs';
import { constants as os } from 'node:os';
import { join } from 'node:path';
import { BerthError, isErrno } from '../errors.ts';
import { check, declare, SyscallError } from './libc.ts';

const SYS_OPENAT2 = 437;
/** Names a file without opening it (open(2)); Node has no constant for it. */
export const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;
const RESOLVE_NO_MAGICLINKS = 0x02;
const RESOLVE_IN_ROOT = 0x10;
const MAX_LINKS = 255;
const MAX_ATTEMPTS = 32;

const cOpenat2 = declare<[number, number, string, Buffer, number]>(
  'syscall',
  ['long', 'int', 'const char *', 'void *', 'size_t'],
  'long',
);

/**
 * The path on the host of `path` as a process with the root directory `root` would see it: links are
 * followed, absolute ones and `..` never lead above `root`. What does not exist is kept as it is written,
 * so the answer may name a file that is yet to be made.
 *
 * True only as long as nobody changes links below `root`: for the files of a running container use
 * `openInRoot`.
 *
 * @throws SyscallError ELOOP past 255 links
 */
export function resolveInRoot(root: string, path: string): string {
  const pending = path.split('/').reverse();
  let resolved: string[] = [];
  let links = 0;
  for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
    if (part === '' || part === '.') continue;
    if (part === '..') {
      resolved.pop();
      continue;
    }
    const target = linkTarget(join(root, ...resolved, part));
    if (target === undefined) {
      resolved.push(part);
      continue;
    }
    links++;
    if (links > MAX_LINKS) throw new SyscallError('resolve', os.errno.ELOOP, path);
    if (target.startsWith('/')) resolved = [];
    pending.push(...target.split('/').reverse());
  }
  return join(root, ...resolved);
}

/** Undefined when it is no link, or nothing is there. */
function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (e: unknown) {
    if (isErrno(e, 'EINVAL', 'ENOENT', 'ENOTDIR')) return undefined;
    throw e;
  }
}

/**
 * Opens a file or directory below `root` as `resolveInRoot` would find it, but in one step of the kernel
 * (openat2(2) with RESOLVE_IN_ROOT, Linux 5.6), so links changed meanwhile cannot lead outside. `flags`
 * are those of `fs.openSync` for something that exists. Close the descriptor with `fs.closeSync`.
 *
 * What it is gets checked before it is opened: an image may put a FIFO or a device where `/etc/passwd`
 * belongs, and opening those waits for ever or acts on the host.
 *
 * @throws SyscallError ENOENT, ELOOP …; BerthError `invalid` when it is no file or directory
 */
export function openInRoot(root: string, path: string, flags: number = constants.O_RDONLY): number {
  const handle = openHandle(root, path);
  try {
    const stats = fstatSync(handle);
    if (!stats.isFile() && !stats.isDirectory()) {
      throw new BerthError('invalid', `${path}: must be a regular file or a directory`);
    }
    return openSync(`/proc/self/fd/${handle}`, flags);
  } finally {
    closeSync(handle);
  }
}

function openHandle(root: string, path: string): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(O_PATH | O_CLOEXEC));
  how.writeBigUInt64LE(BigInt(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), 16);
  const rootFd = openSync(root, O_PATH | constants.O_DIRECTORY);
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        return check('openat2', cOpenat2(SYS_OPENAT2, rootFd, path, how, how.length), path);
      } catch (e: unknown) {
        if (isErrno(e, 'ENOSYS')) return openHandleByPath(root, path);
        // A rename anywhere on the host while `..` was walked: the kernel cannot tell, and asks to retry.
        if (!isErrno(e, 'EAGAIN') || attempt === MAX_ATTEMPTS) throw e;
      }
    }
  } finally {
    closeSync(rootFd);
  }
}

/**
 * `openInRoot`'s first step without openat2: where the descriptor ended up is asked afterwards, and
 * outside of `root` it is given up. An O_PATH descriptor has no effect on what it names. Exported for tests.
 */
export function openHandleByPath(root: string, path: string): number {
  const fd = openSync(resolveInRoot(root, path), O_PATH | constants.O_NOFOLLOW);
  const real = realpathSync(root);
  const found = readlinkSync(`/proc/self/fd/${fd}`);
  if (found === real || found.startsWith(real === '/' ? '/' : `${real}/`)) return fd;
  closeSync(fd);
  throw new SyscallError('open', os.errno.EXDEV, path);
}
