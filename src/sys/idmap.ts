import { closeSync } from 'node:fs';
import { check, declare } from './libc.ts';
import { MS_PRIVATE, MS_SLAVE } from './mount.ts';

// Numbers of include/uapi/asm-generic/unistd.h, the same on every architecture; flags of linux/mount.h.
const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_MOUNT_SETATTR = 442;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_RDONLY = 1;
const MOUNT_ATTR_IDMAP = 0x0010_0000;
/** struct mount_attr: attr_set, attr_clr, propagation, userns_fd, 64 bits each. */
const MOUNT_ATTR_SIZE = 32;

const cOpenTree = declare<[number, number, string, number]>(
  'syscall',
  ['long', 'int', 'const char *', 'uint'],
  'long',
);
const cMoveMount = declare<[number, number, string, number, string, number]>(
  'syscall',
  ['long', 'int', 'const char *', 'int', 'const char *', 'uint'],
  'long',
);
const cMountSetattr = declare<[number, number, string, number, Buffer, number]>(
  'syscall',
  ['long', 'int', 'const char *', 'uint', 'void *', 'size_t'],
  'long',
);

/**
 * Shows the directory `source` at `target` with owners mapped as in the user namespace behind the descriptor
 * `usernsFd`: what id 0 owns on disk is owned by the namespace's root there (mount_setattr(2), "ID-mapped
 * mounts"). Mounts below `source` are left out. Nothing on disk changes.
 *
 * @throws SyscallError; EINVAL when the file system cannot be mapped, EPERM when the namespace has no mapping
 */
export function idmappedMount(source: string, target: string, usernsFd: number): void {
  const tree = cloneTree(source, 0);
  try {
    setAttributes(tree, 0, MOUNT_ATTR_IDMAP, usernsFd, source);
    moveTree(tree, target);
  } finally {
    closeSync(tree);
  }
}

/**
 * Tries whether the kernel makes mounts read-only with all below them (Linux 5.12), on a copy of `dir`'s that
 * is mounted nowhere.
 *
 * @throws SyscallError when it does not
 */
export function tryRecursiveReadOnly(dir: string): void {
  const tree = cloneTree(dir, AT_RECURSIVE);
  try {
    setAttributes(tree, AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, dir);
  } finally {
    closeSync(tree);
  }
}

/**
 * A descriptor of a copy of the mount at `path`, which is mounted nowhere yet; close it.
 *
 * @throws SyscallError
 */
export function openTree(path: string, access: 'readonly' | 'writable'): number {
  const tree = cloneTree(path, 0);
  try {
    if (access === 'readonly') setAttributes(tree, 0, MOUNT_ATTR_RDONLY, 0, path);
    return tree;
  } catch (e: unknown) {
    closeSync(tree);
    throw e;
  }
}

/** How {@link bindTree} shows a tree. */
export interface TreeOptions {
  /** Whether the topmost mount, or all, can only be read. */
  readonly?: boolean | 'recursive';
  /** Whether what is mounted below the source later appears; what is unmounted goes in any case. */
  follow: boolean;
}

/**
 * Shows `source` with all mounts below it at `target`, which is in a shared mount, so that a mount namespace
 * that is a slave of this one gets the same, with the same flags, and loses it when it is unmounted here.
 *
 * A bind mount by mount(2) that is then remounted read-only or made private is neither in the slave: what
 * reaches it is the mount as it was when it was attached. So this makes the copy as it should be and attaches
 * it last (mount_setattr(2), Linux 5.12).
 *
 * @throws SyscallError; ENOSYS before Linux 5.12
 */
export function bindTree(source: string, target: string, { readonly = false, follow }: TreeOptions): void {
  const tree = cloneTree(source, AT_RECURSIVE);
  try {
    const propagation = follow ? MS_SLAVE : MS_PRIVATE;
    setAttributes(
      tree,
      AT_RECURSIVE,
      readonly === 'recursive' ? MOUNT_ATTR_RDONLY : 0,
      0,
      source,
      propagation,
    );
    if (readonly === true) setAttributes(tree, 0, MOUNT_ATTR_RDONLY, 0, source);
    moveTree(tree, target);
  } finally {
    closeSync(tree);
  }
}

/**
 * Mounts what {@link openTree} gave at `target` of this thread's mount namespace, never following a symlink
 * in its last part. @throws SyscallError
 */
export function moveTree(tree: number, target: string): void {
  check(
    'move_mount',
    cMoveMount(SYS_MOVE_MOUNT, tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH),
    target,
  );
}

function cloneTree(path: string, flags: number): number {
  const all = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags;
  return check('open_tree', cOpenTree(SYS_OPEN_TREE, AT_FDCWD, path, all), path);
}

function setAttributes(
  tree: number,
  flags: number,
  set: number,
  usernsFd: number,
  path: string,
  propagation = 0,
): void {
  const attributes = Buffer.alloc(MOUNT_ATTR_SIZE);
  attributes.writeBigUInt64LE(BigInt(set));
  attributes.writeBigUInt64LE(BigInt(propagation), 16);
  attributes.writeBigUInt64LE(BigInt(usernsFd), 24);
  check(
    'mount_setattr',
    cMountSetattr(SYS_MOUNT_SETATTR, tree, '', AT_EMPTY_PATH | flags, attributes, MOUNT_ATTR_SIZE),
    path,
  );
}
