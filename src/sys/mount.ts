import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { isErrno } from '../errors.ts';
import { check, declare, SyscallError } from './libc.ts';

/** Mount flags by their kernel names (`include/uapi/linux/mount.h`). */
export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOEXEC = 8;
export const MS_REMOUNT = 32;
export const MS_NOATIME = 1024;
export const MS_NODIRATIME = 2048;
export const MS_BIND = 4096;
export const MS_REC = 16384;
export const MS_PRIVATE = 1 << 18;
export const MS_SLAVE = 1 << 19;
export const MS_SHARED = 1 << 20;
export const MS_RELATIME = 1 << 21;

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
const E2BIG = 7;
const O_PATH = 0o10000000;

const cMount = declare<[string | null, string, string | null, number, string | null]>('mount', [
  'const char *',
  'const char *',
  'const char *',
  'ulong',
  'const char *',
]);
const cUmount2 = declare<[string, number]>('umount2', ['const char *', 'int']);
const cGetpagesize = declare<[]>('getpagesize', []);

/**
 * mount(2). `null` for the source or type where the flags make them meaningless (propagation, bind).
 *
 * @throws SyscallError with `path` the target
 */
export function mount(
  source: string | null,
  target: string,
  fstype: string | null,
  flags: number,
  data?: string,
): void {
  check('mount', cMount(source, target, fstype, flags, data ?? null), target);
}

/**
 * umount2(2) of the topmost mount at `target`, never following a symlink in its last part.
 * False when there was nothing to unmount: the path is absent (ENOENT), or is no mount point (EINVAL,
 * which the kernel also answers for a mount locked by a user namespace; berth has none of those).
 * `lazy` detaches at once and lets the kernel finish when the last user is gone.
 *
 * @throws SyscallError, EBUSY among them
 */
export function unmount(target: string, options: { lazy?: boolean } = {}): boolean {
  try {
    check('umount2', cUmount2(target, UMOUNT_NOFOLLOW | (options.lazy ? MNT_DETACH : 0)), target);
    return true;
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'EINVAL')) return false;
    throw e;
  }
}

/**
 * Makes `source` visible at `target`. Read-only takes a second call: mount(2) ignores every other flag
 * while binding (mount(2), "Creating a bind mount"). With `recursive`, mounts below come along, but
 * `readonly` reaches only the top one.
 *
 * @throws SyscallError
 */
export function bindMount(
  source: string,
  target: string,
  options: { readonly?: boolean; recursive?: boolean } = {},
): void {
  mount(source, target, null, MS_BIND | (options.recursive ? MS_REC : 0));
  if (!options.readonly) return;
  try {
    mount(null, target, null, MS_BIND | MS_REMOUNT | MS_RDONLY);
  } catch (e: unknown) {
    unmount(target, { lazy: true });
    throw e;
  }
}

/** What `mountOverlay` mounts. Paths are absolute; `lowerdirs` has the topmost layer first. */
export interface OverlayMount {
  lowerdirs: string[];
  /** With its `workdir` on the same file system; both absent for a read-only view. */
  upperdir?: string;
  workdir?: string;
  target: string;
  /** Such as `index=off`, `metacopy=off`, `volatile`. */
  extraOptions?: string[];
  /** What SELinux calls all files in it. */
  selinuxLabel?: string;
  /** Mount flags such as MS_NODEV. */
  flags?: number;
}

/**
 * Mounts an overlay (Documentation/filesystems/overlayfs.rst). A read-only one of a single layer becomes a
 * read-only bind mount, as overlayfs wants two lower directories when there is no upper.
 *
 * mount(2) takes at most a page of options less the closing NUL, which some 45 layers with long paths
 * fill, while images have up to 127. Past that, each lower directory is opened and named
 * `/proc/self/fd/N`, 18 bytes at most: some 200 layers fit. The usual way round, chdir to the layers'
 * common parent, would change the directory of every thread of the daemon, and saves nothing when the
 * names themselves are digests. The new mount API takes one layer a call, but only from Linux 6.8.
 * Short lists keep their real paths, because `/proc/self/mountinfo` shows what was passed.
 *
 * @throws SyscallError; E2BIG when even the short form does not fit
 */
export function mountOverlay(overlay: OverlayMount): void {
  const { lowerdirs, target, flags = 0 } = overlay;
  const [only] = lowerdirs;
  if (overlay.upperdir === undefined && lowerdirs.length === 1 && only !== undefined) {
    bindMount(only, target, { readonly: true });
    return;
  }
  const readonly = overlay.upperdir === undefined ? MS_RDONLY : 0;
  const limit = cGetpagesize() - 1;
  const plain = overlayOptions(overlay, lowerdirs);
  if (Buffer.byteLength(plain) <= limit) {
    mount('overlay', target, 'overlay', flags | readonly, plain);
    return;
  }
  const fds: number[] = [];
  try {
    for (const dir of lowerdirs) fds.push(openSync(dir, O_PATH | constants.O_DIRECTORY));
    const short = overlayOptions(
      overlay,
      fds.map((fd) => `/proc/self/fd/${fd}`),
    );
    if (Buffer.byteLength(short) > limit) throw new SyscallError('mount', E2BIG, target);
    mount('overlay', target, 'overlay', flags | readonly, short);
  } finally {
    // The mount holds its own references to the layers.
    for (const fd of fds) closeSync(fd);
  }
}

/** The option string, with the characters that separate options and layers escaped. Exported for tests. */
export function overlayOptions(
  overlay: Pick<OverlayMount, 'upperdir' | 'workdir' | 'extraOptions' | 'selinuxLabel'>,
  lowerdirs: string[],
): string {
  const options = [`lowerdir=${lowerdirs.map((dir) => dir.replace(/[\\:,]/g, '\\$&')).join(':')}`];
  if (overlay.upperdir !== undefined) options.push(`upperdir=${overlay.upperdir.replace(/[\\,]/g, '\\$&')}`);
  if (overlay.workdir !== undefined) options.push(`workdir=${overlay.workdir.replace(/[\\,]/g, '\\$&')}`);
  // Quoted, as levels have commas.
  if (overlay.selinuxLabel !== undefined) options.push(`context="${overlay.selinuxLabel}"`);
  return [...options, ...(overlay.extraOptions ?? [])].join(',');
}

/** One line of mountinfo (proc_pid_mountinfo(5)). */
export interface MountEntry {
  id: number;
  parentId: number;
  /** `major:minor` of the file system's device. */
  device: string;
  /** The directory of the file system that is the mount's root; for a namespace file `net:[4026531840]`. */
  root: string;
  mountpoint: string;
  /** Per-mount options: `rw,nosuid`. */
  options: string[];
  /** Propagation: `shared:1`, `master:2`, `unbindable`; empty means private. */
  propagation: string[];
  fstype: string;
  source: string;
  superOptions: string[];
}

/** The mount that a path without links is on: the deepest one, and of several at one place the last. */
export function mountOf(path: string, entries: readonly MountEntry[]): MountEntry | undefined {
  let found: MountEntry | undefined;
  for (const entry of entries) {
    const { mountpoint } = entry;
    const below = mountpoint === '/' ? '/' : `${mountpoint}/`;
    if (path !== mountpoint && !path.startsWith(below)) continue;
    if (found === undefined || mountpoint.length >= found.mountpoint.length) found = entry;
  }
  return found;
}

/** Parses a mountinfo file; lines that do not have its form are left out. */
export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [id, parentId, device, root, mountpoint, options] = fields;
    const [fstype, source, superOptions] = fields.slice(separator + 1);
    if (separator < 0 || mountpoint === undefined || root === undefined || options === undefined) continue;
    if (fstype === undefined || source === undefined || device === undefined) continue;
    entries.push({
      id: Number(id),
      parentId: Number(parentId),
      device,
      root: unescapeOctal(root),
      mountpoint: unescapeOctal(mountpoint),
      options: options.split(','),
      propagation: fields.slice(6, separator),
      fstype: unescapeOctal(fstype),
      source: unescapeOctal(source),
      superOptions: superOptions === undefined ? [] : unescapeOctal(superOptions).split(','),
    });
  }
  return entries;
}

/** The kernel writes space, tab, newline, backslash and `#` as three octal digits. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/**
 * The mounts at `prefix` and below it (all without one), in mount order, so that unmounting in reverse works.
 * `prefix` is absolute and free of symlinks.
 */
export function listMounts(prefix = '/'): MountEntry[] {
  const entries = parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  const below = prefix.endsWith('/') ? prefix : `${prefix}/`;
  return entries.filter((e) => e.mountpoint === prefix || e.mountpoint.startsWith(below));
}
