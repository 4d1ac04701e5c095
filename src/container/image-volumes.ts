import { closeSync, readlinkSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { BerthError, invalid, kindOf, messageOf } from '../errors.ts';
import type { Image } from '../image/types.ts';
import type { ContainerPaths } from '../paths.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { unmount } from '../sys/mount.ts';
import { O_PATH, openInRoot } from '../sys/safe-path.ts';
import type { Mount } from './config.ts';
import type { ContainerRecord } from './record.ts';
import { mountLayers } from './rootfs.ts';

/** An image that one of a container's mounts shows. */
export interface ImageVolume {
  /** Index in the config's mounts. */
  readonly mount: number;
  /** Digest of the image's config. */
  readonly imageId: string;
}

/**
 * The images that mounts name. They are pulled by the caller first, as a container's own image is.
 *
 * @throws BerthError `notFound`; `invalid` for a mount that asks to be writable
 */
export function findImageVolumes(s: Services, mounts: readonly Mount[]): ImageVolume[] {
  return mounts.flatMap(({ image, readonly }, mount) => {
    if (image === undefined) return [];
    const field = `config.mounts[${mount}]`;
    if (!readonly) throw failed(invalid(`${field}.readonly`, 'must be set: images are mounted read-only'));
    const found = s.images.get(image.image);
    if (found === undefined) {
      const problem = `${field}.image.image: image "${image.image}" not found (pull it first)`;
      throw failed(new BerthError('notFound', problem));
    }
    return [{ mount, imageId: found.id }];
  });
}

/**
 * Mounts the images below the bundle.
 *
 * @returns the mounts, with `hostPath` of those that name an image filled in
 * @throws BerthError `invalid` for a sub path that the image does not have
 */
export async function mountImageVolumes(
  s: Services,
  sandbox: SandboxRecord,
  paths: ContainerPaths,
  { config: { mounts }, imageVolumes, selinux }: Pick<ContainerRecord, 'config' | 'imageVolumes' | 'selinux'>,
): Promise<Mount[]> {
  const filled = [...mounts];
  for (const { mount: index, imageId } of imageVolumes) {
    const mount = mounts[index];
    const image = s.images.get(imageId);
    if (mount === undefined || image === undefined) {
      throw failed(new BerthError('internal', `config.mounts[${index}]: the image was removed meanwhile`));
    }
    try {
      const root = await mountImage(s, sandbox, paths, index, image, selinux?.mount);
      // The layers are mapped already, and an overlay cannot be.
      const owners = { uidMappings: [], gidMappings: [] };
      filled[index] = { ...mount, ...owners, hostPath: subPath(root, mount.imageSubPath, index) };
    } catch (e: unknown) {
      throw failed(e);
    }
  }
  return filled;
}

async function mountImage(
  s: Services,
  sandbox: SandboxRecord,
  paths: ContainerPaths,
  index: number,
  image: Image,
  selinuxLabel: string | undefined,
): Promise<string> {
  const target = paths.imageVolume(index);
  await mkdir(target, { recursive: true, mode: 0o711 });
  const lowerdirs = s.images.lowerdirs(image);
  // Without layers the empty directory itself is the image's content.
  if (lowerdirs.length === 0) return target;
  // A single layer would become a bind mount, whose files keep the label of images; the second one is empty.
  const labelled =
    selinuxLabel === undefined ? { lowerdirs } : { lowerdirs: [...lowerdirs, target], selinuxLabel };
  await mountLayers(s, sandbox, paths, { ...labelled, target });
  return target;
}

/** Links are followed as inside the image. What was found stays true: nobody can change an image. */
function subPath(root: string, path: string, index: number): string {
  if (path === '') return root;
  try {
    const fd = openInRoot(root, path, O_PATH);
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } finally {
      closeSync(fd);
    }
  } catch (e: unknown) {
    throw invalid(`config.mounts[${index}].image_sub_path`, `"${path}" in the image: ${messageOf(e)}`);
  }
}

/** Repeatable. */
export function unmountImageVolumes(paths: ContainerPaths, volumes: readonly ImageVolume[]): void {
  for (const { mount } of volumes) unmount(paths.imageVolume(mount), { lazy: true });
}

/** The kubelet tells this case by the message's first word (cri-api/pkg/errors, ErrImageVolumeMountFailed). */
function failed(e: unknown): BerthError {
  return new BerthError(kindOf(e), `ImageVolumeMountFailed: ${messageOf(e)}`, { cause: e });
}
