import { BerthError } from '../../errors.ts';
import { unmount } from '../../sys/mount.ts';
import { mountWithOptions } from '../../sys/mount-options.ts';

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

/** @throws BerthError `unimplemented` for more than one; SyscallError */
export function mountRootfs(mounts: readonly RootfsMount[], target: string): void {
  const [only, ...others] = mounts;
  if (only === undefined) return;
  if (others.length > 0)
    throw new BerthError('unimplemented', 'rootfs: more than one mount for one root file system');
  mountWithOptions({ ...only, target });
}

/** Repeatable. */
export function unmountRootfs(target: string): void {
  unmount(target, { lazy: true });
}
