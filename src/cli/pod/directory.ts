import { chmod, chown, lstat, mkdir, open, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BerthError, during, invalid, isErrno } from '../../errors.ts';
import { ANNOTATION, containersInOrder, hostsFile, type PodPlan } from './to-cri.ts';
import type { MountPlan, VolumePlan } from './volumes.ts';

/** Marks a directory as one that `berth run` made for the pod whose UID it holds. */
const MARKER = '.berth-pod';

/** Makes the pod's directory with places for its logs and emptyDir volumes, and the hostPaths it wants. */
export async function makePodDirectory(plan: PodPlan): Promise<void> {
  await mkdir(path.dirname(plan.podDirectory), { recursive: true, mode: 0o750 });
  // Not recursive: a directory that is there already belongs to a pod that has this UID.
  await mkdir(plan.podDirectory, { mode: 0o750 });
  await writeFile(path.join(plan.podDirectory, MARKER), plan.facts.uid, { flag: 'wx' });
  for (const { container } of containersInOrder(plan.pod)) {
    await mkdir(path.join(plan.podDirectory, 'logs', container.name), { recursive: true, mode: 0o755 });
  }
  for (const volume of plan.volumes.values()) {
    await prepareVolume(volume, plan.pod.spec.securityContext?.fsGroup ?? undefined).catch((e: unknown) => {
      throw during(`volume ${volume.name}`, e);
    });
  }
}

/** Writes the pod's hosts file, once its addresses are known. Returns its path. */
export async function writeHostsFile(plan: PodPlan): Promise<string> {
  const file = path.join(plan.podDirectory, 'etc-hosts');
  await writeFile(file, hostsFile(plan.pod, plan.facts), { mode: 0o644 });
  return file;
}

/**
 * The host's side of a mount. A missing subPath is made, as Kubernetes does; one that a symlink leads out of
 * its volume is refused, for an earlier container of the pod may have planted it.
 *
 * @throws BerthError invalid
 */
export async function mountSource(mount: MountPlan): Promise<string> {
  if (mount.subPath === '') return mount.volume.hostPath;
  const root = await realpath(mount.volume.hostPath);
  let current = root;
  for (const part of mount.subPath.split('/').filter((name) => name !== '' && name !== '.')) {
    const next = path.join(current, part);
    await mkdir(next, { mode: 0o750 }).catch((e: unknown) => {
      if (!isErrno(e, 'EEXIST', 'ENOTDIR')) throw e;
    });
    current = await realpath(next);
    if (current !== root && !current.startsWith(`${root}/`)) {
      throw invalid(`subPath ${mount.subPath}`, `leads out of volume ${mount.volume.name}`);
    }
  }
  return current;
}

/**
 * Removes what `berth run` made for a pod, if it did make something: the sandbox's annotation says where,
 * and the marker in the directory, which only root can have put there, that it is this pod's. Pods of
 * others may carry the annotation too; their claims are not believed.
 */
export async function removePodDirectory(uid: string, annotations: Record<string, string>): Promise<void> {
  const directory = annotations[ANNOTATION.podDirectory];
  if (directory === undefined || !path.isAbsolute(directory) || path.basename(directory) !== uid) return;
  const marker = path.join(directory, MARKER);
  try {
    const info = await lstat(marker);
    if (!info.isFile() || info.uid !== process.getuid?.() || (await realpath(directory)) !== directory)
      return;
    if ((await readFile(marker, 'utf8')) !== uid) return;
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR', 'EACCES')) return;
    throw e;
  }
  await unmountBelow(directory);
  await rm(directory, { recursive: true, force: true });
}

/** Volumes in memory are mounts; removing through them would only empty them. */
async function unmountBelow(directory: string): Promise<void> {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .map((text) =>
      text.replace(/\\([0-7]{3})/g, (_all, code: string) => String.fromCharCode(parseInt(code, 8))),
    )
    .filter((target) => target.startsWith(`${directory}/`));
  if (mounts.length === 0) return;
  const { unmount } = await import('../../sys/mount.ts');
  for (const target of mounts.reverse()) unmount(target, { lazy: true });
}

async function prepareVolume({ hostPath, source }: VolumePlan, fsGroup: number | undefined): Promise<void> {
  if (source.kind === 'hostPath') return prepareHostPath(hostPath, source.type);
  await mkdir(hostPath, { recursive: true });
  if (source.memory) {
    const { mount, MS_NODEV, MS_NOSUID } = await import('../../sys/mount.ts');
    const size = source.sizeLimit === undefined ? '' : `,size=${source.sizeLimit}`;
    mount('tmpfs', hostPath, 'tmpfs', MS_NODEV | MS_NOSUID, `mode=0777${size}`);
  }
  // mkdir's mode is cut by the umask; Kubernetes promises an emptyDir that every user may write to.
  await chmod(hostPath, 0o777);
  if (fsGroup === undefined) return;
  await chown(hostPath, -1, fsGroup);
  await chmod(hostPath, 0o2777);
}

/** Kubernetes' hostPath types: what must be there, and what is made when it is not. */
async function prepareHostPath(hostPath: string, type: string): Promise<void> {
  if (type === 'DirectoryOrCreate') await mkdir(hostPath, { recursive: true, mode: 0o755 });
  if (type === 'FileOrCreate') await (await open(hostPath, 'a', 0o644)).close();
  if (type === '') return;
  const info = await lstat(await realpath(hostPath));
  const right: Record<string, boolean> = {
    DirectoryOrCreate: info.isDirectory(),
    Directory: info.isDirectory(),
    FileOrCreate: info.isFile(),
    File: info.isFile(),
    Socket: info.isSocket(),
    CharDevice: info.isCharacterDevice(),
    BlockDevice: info.isBlockDevice(),
  };
  if (!right[type]) throw new BerthError('precondition', `${hostPath} is no ${type.replace('OrCreate', '')}`);
}
