import { mkdir, readdir, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { BerthError, isErrno } from '../../errors.ts';
import { bindTree } from '../../sys/idmap.ts';
import { listMounts, MS_SHARED, mount, unmount } from '../../sys/mount.ts';
import type { VmDirectory } from './directory.ts';

/** The two sides of a share: mount points are made in one, and mounted on in the other. */
export type ShareDirectory = Pick<VmDirectory, 'points' | 'shared'>;

/**
 * Makes the directory of what the guest sees, a mount of its own that passes later mounts on to virtiofsd's namespace.
 * It is read-only: a guest could fill the file system that it is on. Repeatable.
 *
 * @throws SyscallError
 */
export async function makeShare({ points, shared }: ShareDirectory): Promise<void> {
  for (const dir of [points, shared]) await mkdir(dir, { mode: 0o700 });
  bindTree(points, shared, { readonly: true, follow: false });
  mount(null, shared, null, MS_SHARED);
}

/** Puts a container's root file system into the share. @throws SyscallError */
export async function shareRootfs(directory: ShareDirectory, id: string, rootfs: string): Promise<void> {
  const name = join(id, 'rootfs');
  await mkdir(join(directory.points, name), { recursive: true });
  bindTree(rootfs, join(directory.shared, name), { follow: false });
}

/**
 * Takes a part out of the share: unmounts all of it, then removes the directories and empty files that were mount
 * points. Never a recursive removal: a mount that could not be taken away is somebody's data. Repeatable; what is not
 * there is done.
 *
 * @param name of a container, for example
 * @throws SyscallError; BerthError `internal` when something is still mounted
 */
export async function unshare({ points, shared }: ShareDirectory, name: string): Promise<void> {
  const place = join(shared, name);
  for (const { mountpoint } of listMounts(place).reverse()) unmount(mountpoint, { lazy: true });
  refuseMounts(place);
  await removeEmpty(join(points, name));
}

/** Takes the whole share down. Repeatable. @throws as {@link unshare} */
export async function removeShare(directory: ShareDirectory): Promise<void> {
  await unshare(directory, '.');
  await removeEmpty(directory.shared);
}

/** @throws BerthError `internal`: something is mounted on a directory or below it */
export function refuseMounts(dir: string): void {
  const [left] = listMounts(dir);
  if (left !== undefined) throw new BerthError('internal', `${left.mountpoint} is still mounted`);
}

async function removeEmpty(dir: string): Promise<void> {
  try {
    for (const entry of await readdir(dir, { withFileTypes: true })) {
      const path = join(dir, entry.name);
      await (entry.isDirectory() ? removeEmpty(path) : unlink(path));
    }
    await rmdir(dir);
  } catch (e: unknown) {
    if (!isErrno(e, 'ENOENT')) throw e;
  }
}
