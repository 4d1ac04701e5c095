import { mkdir, rm } from 'node:fs/promises';
import { during } from '../errors.ts';
import type { Image } from '../image/types.ts';
import type { ContainerPaths } from '../paths.ts';
import type { Services } from '../services.ts';
import { mountOverlay, unmount } from '../sys/mount.ts';

/** Mounts the image's layers with a writable one of the container's own at its `rootfs`. */
export async function mountRootfs(s: Services, paths: ContainerPaths, image: Image): Promise<void> {
  await Promise.all([
    mkdir(paths.rootfs, { recursive: true, mode: 0o711 }),
    mkdir(paths.upper, { recursive: true, mode: 0o755 }),
    mkdir(paths.work, { recursive: true, mode: 0o711 }),
  ]);
  const lowerdirs = s.images.lowerdirs(image);
  try {
    mountOverlay({
      // overlayfs wants at least one lower directory; an image may have no layers.
      lowerdirs: lowerdirs.length > 0 ? lowerdirs : [paths.rootfs],
      upperdir: paths.upper,
      workdir: paths.work,
      target: paths.rootfs,
    });
  } catch (e: unknown) {
    throw during('mount the root file system', e);
  }
}

/** Repeatable. The files of the writable layer stay until {@link removeWritableLayer}. */
export function unmountRootfs(paths: ContainerPaths): void {
  unmount(paths.rootfs, { lazy: true });
}

export async function removeWritableLayer(paths: ContainerPaths): Promise<void> {
  await rm(paths.writable, { recursive: true, force: true });
}
