import { mkdir, readdir, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { BerthError, isErrno } from '../../errors.ts';
import { bindTree } from '../../sys/idmap.ts';
import { listMounts, MS_BIND, MS_SHARED, mount, unmount } from '../../sys/mount.ts';
import type { VmDirectory } from './directory.ts';

/**
 * Makes the directory of what the guest sees, a mount of its own that passes later mounts on to virtiofsd's namespace.
 * Repeatable.
 *
 * @throws SyscallError
 */
export async function makeShare({ shared }: VmDirectory): Promise<void> {
  await mkdir(shared, { mode: 0o700 });
  mount(shared, shared, null, MS_BIND);
  mount(null, shared, null, MS_SHARED);
}

/** Puts a container's root file system into the share. @throws SyscallError */
export async function shareRootfs(directory: VmDirectory, id: string, rootfs: string): Promise<void> {
  const place = join(directory.sharedOf(id), 'rootfs');
  await mkdir(place, { recursive: true });
  bindTree(rootfs, place, { follow: false });
}

/** Takes a container out of the share. Repeatable; what is not there is done. @throws SyscallError */
export async function unshareContainer(directory: VmDirectory, id: string): Promise<void> {
  await removeShared(directory.sharedOf(id));
}

/** Takes the whole share down. Repeatable. @throws SyscallError */
export async function removeShare({ shared }: VmDirectory): Promise<void> {
  await removeShared(shared);
}

/**
 * Unmounts all below a directory, then removes the directories and empty files that were mount points. Never a
 * recursive removal: a mount that could not be taken away is somebody's data.
 */
export async function removeShared(dir: string): Promise<void> {
  for (const { mountpoint } of listMounts(dir).reverse()) unmount(mountpoint, { lazy: true });
  refuseMounts(dir);
  await removeEmpty(dir);
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
