import { closeSync, constants, readlinkSync } from 'node:fs';
import { chown, mkdir } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { during, isErrno } from '../errors.ts';
import type { Image } from '../image/types.ts';
import type { ContainerPaths } from '../paths.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import { hostRoot } from '../sandbox/user-namespace.ts';
import { runOk } from '../sys/exec.ts';
import { O_PATH, openInRoot } from '../sys/safe-path.ts';
import type { Mount } from './config.ts';

/** Milliseconds for copying what the image has at one of its volumes. */
const COPY_MS = 300_000;

/** What an image does not get to cover: the root, the kernel's file systems, and the pod's files in /etc. */
const OFF_LIMITS = /^\/(?:$|(?:proc|sys|dev)(?:\/|$)|etc(?:\/(?:hosts|hostname|resolv\.conf))?$)/;

/**
 * Makes the volumes that the image declares (`VOLUME` in a Dockerfile; OCI image-spec, config.md, "Volumes"):
 * a directory for each, beside the container's writable layer and removed with it, with what the image has
 * there. So they are writable also with a read-only root, and no overlay slows them down; containerd does
 * the same. A path where the pod mounts something is the pod's. The root file system must be mounted.
 *
 * @returns mounts to be added to the config's
 */
export async function makeDeclaredVolumes(
  sandbox: SandboxRecord,
  paths: ContainerPaths,
  image: Image,
  mounts: readonly Mount[],
): Promise<Mount[]> {
  const taken = new Set(mounts.map(({ containerPath }) => posix.resolve('/', containerPath)));
  const wanted = new Set(image.config.volumes.map((path) => posix.resolve('/', path)));
  const made: Mount[] = [];
  for (const containerPath of [...wanted].sort()) {
    if (OFF_LIMITS.test(containerPath) || taken.has(containerPath)) continue;
    const hostPath = join(paths.declaredVolumes, String(made.length));
    try {
      await makeVolume(sandbox, paths.rootfs, containerPath, hostPath);
    } catch (e: unknown) {
      throw during(`volume ${containerPath} of the image`, e);
    }
    made.push({
      containerPath,
      hostPath,
      readonly: false,
      recursiveReadOnly: false,
      selinuxRelabel: true,
      propagation: 'private',
      uidMappings: [],
      gidMappings: [],
      imageSubPath: '',
    });
  }
  return made;
}

async function makeVolume(
  sandbox: SandboxRecord,
  rootfs: string,
  containerPath: string,
  hostPath: string,
): Promise<void> {
  await mkdir(hostPath, { recursive: true, mode: 0o755 });
  const root = hostRoot(sandbox.config.security.namespaces.user);
  if (root !== undefined) await chown(hostPath, root.uid, root.gid);
  const source = directoryIn(rootfs, containerPath);
  if (source === undefined) return;
  // With owners as the root file system shows them, which are those of the pod's user namespace.
  await runOk(['cp', '-a', '--reflink=auto', '--', `${source}/.`, hostPath], {
    timeoutMs: COPY_MS,
    maxOutput: 4096,
  });
}

/** The directory that the container has at a path, as a path of this machine. */
function directoryIn(rootfs: string, path: string): string | undefined {
  try {
    const fd = openInRoot(rootfs, path, O_PATH | constants.O_DIRECTORY);
    try {
      // Nothing of the container runs yet that could move it.
      return readlinkSync(`/proc/self/fd/${fd}`);
    } finally {
      closeSync(fd);
    }
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return undefined;
    throw e;
  }
}
