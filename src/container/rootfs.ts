import { closeSync, openSync } from 'node:fs';
import { chown, mkdir, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { during } from '../errors.ts';
import type { Image } from '../image/types.ts';
import type { ContainerPaths } from '../paths.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import { hostRoot } from '../sandbox/user-namespace.ts';
import type { Services } from '../services.ts';
import { idmappedMount } from '../sys/idmap.ts';
import { mountOverlay, type OverlayMount, unmount } from '../sys/mount.ts';

/** Mounts the image's layers with a writable one of the container's own at its `rootfs`. */
export async function mountRootfs(
  s: Services,
  sandbox: SandboxRecord,
  paths: ContainerPaths,
  image: Image,
  selinuxLabel: string | undefined,
): Promise<void> {
  await Promise.all([
    mkdir(paths.rootfs, { recursive: true, mode: 0o711 }),
    mkdir(paths.upper, { recursive: true, mode: 0o755 }),
    mkdir(paths.work, { recursive: true, mode: 0o711 }),
  ]);
  const root = hostRoot(sandbox.config.security.namespaces.user);
  // The upper directory is what becomes the container's "/".
  if (root !== undefined) await chown(paths.upper, root.uid, root.gid);
  const lowerdirs = s.images.lowerdirs(image);
  try {
    await mountLayers(s, sandbox, paths, {
      // overlayfs wants at least one lower directory; an image may have no layers.
      lowerdirs: lowerdirs.length > 0 ? lowerdirs : [paths.rootfs],
      upperdir: paths.upper,
      workdir: paths.work,
      target: paths.rootfs,
      ...(selinuxLabel === undefined ? {} : { selinuxLabel }),
    });
  } catch (e: unknown) {
    throw during('mount the root file system', e);
  }
}

/**
 * Mounts layers of images, with owners as the pod's user namespace maps them, if it has one. The layers
 * are mapped, not the overlay, which the kernel cannot map; nothing on disk changes.
 *
 * One mapped mount of the directory that has all layers serves for every layer. It is taken away at once:
 * an overlay holds the mounts that it was made of.
 *
 * @throws SyscallError
 */
export async function mountLayers(
  s: Services,
  sandbox: SandboxRecord,
  paths: ContainerPaths,
  overlay: OverlayMount,
): Promise<void> {
  if (sandbox.config.security.namespaces.user.mode !== 'pod') {
    mountOverlay(overlay);
    return;
  }
  await mkdir(paths.mappedImages, { recursive: true, mode: 0o700 });
  const userns = openSync(join(s.paths.sandbox(sandbox.id).namespaces, 'user'), 'r');
  try {
    idmappedMount(s.paths.images, paths.mappedImages, userns);
    mountOverlay({
      ...overlay,
      lowerdirs: overlay.lowerdirs.map((dir) => mapped(s.paths.images, paths, dir)),
    });
  } finally {
    closeSync(userns);
    unmount(paths.mappedImages, { lazy: true });
  }
}

function mapped(images: string, paths: ContainerPaths, dir: string): string {
  const inside = relative(images, dir);
  return inside.startsWith('..') ? dir : join(paths.mappedImages, inside);
}

/** Repeatable. The files of the writable layer stay until {@link removeWritableLayer}. */
export function unmountRootfs(paths: ContainerPaths): void {
  // There only when the daemon died while it mounted.
  unmount(paths.mappedImages, { lazy: true });
  unmount(paths.rootfs, { lazy: true });
}

export async function removeWritableLayer(paths: ContainerPaths): Promise<void> {
  await rm(paths.writable, { recursive: true, force: true });
}
