import { BerthError } from '../../errors.ts';
import * as sys from '../../sys/mount.ts';

/** One mount that makes a root file system, as containerd's snapshotters hand it over. */
export interface RootfsMount {
  type: string;
  source: string;
  options: readonly string[];
}

/** A disk of the guest's that is a container's root file system, or part of it. */
export interface RootDisk {
  /** Of a file or a block device. */
  path: string;
  type: string;
  readOnly: boolean;
}

/** What a file can be whose name a mount has as its source. */
const ON_DISKS = new Set(['erofs', 'ext4', 'xfs', 'squashfs']);

/**
 * The disks of a root file system, the topmost first, where its mounts are such that a guest can make them: as the
 * snapshotters blockfile, devmapper and erofs of containerd describe them, and berthd. An overlay of them all, which
 * comes last, is the guest's to make. Pure.
 *
 * @returns undefined when the mounts are the host's to make
 * @throws BerthError `unimplemented` for more than one that can be written to
 */
export function rootDisks(mounts: readonly RootfsMount[]): readonly RootDisk[] | undefined {
  const last = mounts.at(-1);
  const parts = last !== undefined && /(^|\/)overlay$/.test(last.type) ? mounts.slice(0, -1) : mounts;
  if (parts.length === 0 || !parts.every(({ type }) => ON_DISKS.has(type))) return undefined;
  const disks = parts.map(({ type, source, options }) => ({
    path: source,
    type,
    readOnly: options.includes('ro') || type === 'erofs' || type === 'squashfs',
  }));
  if (disks.filter(({ readOnly }) => !readOnly).length > 1) {
    throw new BerthError('unimplemented', 'rootfs: more than one disk that can be written to');
  }
  return disks;
}

/** Options that are flags to mount(2); all others are for the file system. */
const FLAGS: Readonly<Record<string, number>> = {
  ro: sys.MS_RDONLY,
  rw: 0,
  nosuid: sys.MS_NOSUID,
  nodev: sys.MS_NODEV,
  noexec: sys.MS_NOEXEC,
  noatime: sys.MS_NOATIME,
  nodiratime: sys.MS_NODIRATIME,
  relatime: sys.MS_RELATIME,
  bind: sys.MS_BIND,
  rbind: sys.MS_BIND | sys.MS_REC,
};

/** @throws BerthError `unimplemented` for more than one; SyscallError */
export function mountRootfs(mounts: readonly RootfsMount[], target: string): void {
  const [only, ...others] = mounts;
  if (only === undefined) return;
  if (others.length > 0)
    throw new BerthError('unimplemented', 'rootfs: more than one mount for one root file system');
  const { flags, data } = mountOptions(only.options);
  sys.mount(only.source, target, only.type, flags, data);
  // mount(2) takes no other flag together with a bind.
  if ((flags & sys.MS_BIND) !== 0 && (flags & sys.MS_RDONLY) !== 0) {
    sys.mount(null, target, null, flags | sys.MS_REMOUNT);
  }
}

/** Repeatable. */
export function unmountRootfs(target: string): void {
  sys.unmount(target, { lazy: true });
}

/** Exported for tests. */
export function mountOptions(options: readonly string[]): { flags: number; data: string } {
  const flags = options.reduce((sum, option) => sum | (FLAGS[option] ?? 0), 0);
  return { flags, data: options.filter((option) => FLAGS[option] === undefined).join(',') };
}
