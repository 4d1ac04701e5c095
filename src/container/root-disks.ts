import { lstat, mkdir } from 'node:fs/promises';
import { during } from '../errors.ts';
import type { Image } from '../image/types.ts';
import type { ContainerPaths } from '../paths.ts';
import type { RootDisksWanted } from '../runtime/handler.ts';
import type { Services } from '../services.ts';
import type { TaskMount } from '../shim/task.ts';
import { runOk } from '../sys/exec.ts';
import { makeEmptyImage, makeImage } from '../vm/storage/image.ts';

/** For copying an image of some gigabytes; the kubelet waits two minutes. */
const COPY_MS = 110_000;
/** Bytes of the unit of `st_blocks` (stat(2)). */
const BLOCK = 512n;

/** A container's root file system as disks of a virtual machine. */
export interface RootDisks {
  /** For the shim; nothing of it is mounted here. */
  mounts: readonly TaskMount[];
  /** What the writable disk took of this host's before the container wrote anything. */
  baseBytes: bigint;
}

/**
 * Puts a container's root file system, which is mounted and not yet written to, on disks: files that a virtual machine
 * has as block devices. What only depends on the image is made once and lies with the topmost layer, for all containers
 * and pods, until that layer is removed; the writable one lies with the container's writable layer, and takes of the disk
 * what was written.
 *
 * One read-only disk for an image, not one for each layer: places for disks are few, and to merge layers is this host's
 * work once instead of every guest's.
 *
 * @throws BerthError with the program's last line, `deadline`; SyscallError ENOENT when erofs-utils or e2fsprogs are not
 *   installed
 */
export async function makeRootDisks(
  s: Services,
  wanted: RootDisksWanted,
  paths: ContainerPaths,
  image: Image,
): Promise<RootDisks> {
  try {
    await mkdir(paths.writable, { recursive: true, mode: 0o711 });
    const mounts = await (wanted.kind === 'erofs' ? sharedAndOwn : ownAlone)(
      s,
      wanted.freeBytes,
      paths,
      image,
    );
    const { blocks } = await lstat(paths.disk, { bigint: true });
    return { mounts, baseBytes: blocks * BLOCK };
  } catch (e: unknown) {
    throw during('make disks of the root file system', e);
  }
}

/** The image's, read-only, below an empty one. */
async function sharedAndOwn(
  s: Services,
  freeBytes: bigint,
  paths: ContainerPaths,
  image: Image,
): Promise<TaskMount[]> {
  const { rootfs: source, disk } = paths;
  const lower = await s.images.made(image, 'root.erofs', (target) =>
    makeImage({ type: 'erofs', source, target, freeBytes: 0n }),
  );
  await makeEmptyImage(disk, freeBytes);
  const lowers = lower === undefined ? [] : [{ type: 'erofs', source: lower, options: ['ro', 'loop'] }];
  return [...lowers, writable(disk)];
}

/** All of it, to be written to. */
async function ownAlone(
  s: Services,
  freeBytes: bigint,
  paths: ContainerPaths,
  image: Image,
): Promise<TaskMount[]> {
  const { rootfs: source, disk } = paths;
  const template = await s.images.made(image, `root-${freeBytes}.ext4`, (target) =>
    makeImage({ type: 'ext4', source, target, freeBytes }),
  );
  if (template === undefined) await makeEmptyImage(disk, freeBytes);
  else {
    // Where the file system can, both share what neither has changed.
    await runOk(['cp', '--reflink=auto', '--sparse=always', '--', template, disk], {
      timeoutMs: COPY_MS,
      maxOutput: 4096,
    });
  }
  return [writable(disk)];
}

function writable(disk: string): TaskMount {
  return { type: 'ext4', source: disk, options: ['rw', 'loop'] };
}
