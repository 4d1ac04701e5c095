import { mkdirSync, writeFileSync } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BerthError } from '../../errors.ts';
import { bindTree, type TreeOptions } from '../../sys/idmap.ts';
import { listMounts, mountOf } from '../../sys/mount.ts';
import { SHARE_PATH } from '../protocol/names.ts';
import { type ShareDirectory, unshare } from './share.ts';

/** A file or directory of the host that a container is to see. */
export interface HostVolume {
  source: string;
  /** In the container. */
  destination: string;
  readonly: boolean | 'recursive';
  /** Mounts that the host makes below it later are to be seen. */
  follows: boolean;
}

/** Where the guest finds a volume. */
export interface GuestVolume {
  path: string;
  /** Whether the guest must keep it from being written; otherwise it may be, or the host does. */
  readonly: boolean;
}

/** Bind mounts in the guest. */
export interface GuestMounts {
  bind(source: string, target: string): Promise<unknown>;
  unmount(target: string): Promise<unknown>;
}

interface SharedVolume {
  /** In the share, on the host and in the guest. */
  name: string;
  /** Where the guest has it. */
  path: string;
  /** Ids of containers. */
  users: Set<string>;
  /** It is in the guest. */
  ready: Promise<unknown>;
}

const NAME = 'volumes';
/** Directories are mounted here in the guest. */
const GUEST_DIR = '/run/berth/volumes';
/** The kubelet's directories of `emptyDir` volumes: the pod's own, for which the guest's word is enough. */
const EMPTY_DIR = '/kubernetes.io~empty-dir/';

/**
 * The volumes of a machine's containers. What several of them mount is shared once: virtiofsd tells files apart by
 * their mounts too, so that a socket, a FIFO or a lock in a volume would otherwise be another one to each container.
 *
 * Of each directory that is a mount on the host the guest's kernel makes a file system of its own, in the mount
 * namespace of whoever comes first (fuse_dentry_automount in fs/fuse/dir.c). So it is bound in the agent's, which
 * those of containers are copies of.
 */
export class SharedVolumes {
  readonly #directory: ShareDirectory;
  readonly #guest: GuestMounts;
  /** By all that makes two mounts see the same. */
  readonly #volumes = new Map<string, SharedVolume>();
  #next = 0;

  constructor(directory: ShareDirectory, guest: GuestMounts) {
    this.#directory = directory;
    this.#guest = guest;
  }

  /** @throws BerthError `unimplemented` for a device; SyscallError. What was added is left to {@link remove}. */
  async add(container: string, volumes: readonly HostVolume[]): Promise<GuestVolume[]> {
    const added: GuestVolume[] = [];
    for (const volume of volumes) added.push(await this.#add(container, volume));
    return added;
  }

  /** Takes away what only this container had. Repeatable. @throws SyscallError */
  async remove(container: string): Promise<void> {
    for (const [key, { name, path, users }] of this.#volumes) {
      if (!users.delete(container) || users.size > 0) continue;
      this.#volumes.delete(key);
      const shared = join(SHARE_PATH, name);
      if (path !== shared) {
        // A guest that has gone has let go of everything.
        for (const target of [path, shared]) await this.#guest.unmount(target).catch(() => {});
      }
      await unshare(this.#directory, name);
    }
  }

  async #add(container: string, { source, readonly, follows }: HostVolume): Promise<GuestVolume> {
    const [real, found] = await Promise.all([realpath(source), stat(source)]);
    if (found.isBlockDevice() || found.isCharacterDevice()) {
      throw new BerthError(
        'unimplemented',
        `mounts: ${source} is a device of the node, which is not in the virtual machine`,
      );
    }
    const mounts = listMounts();
    const below = mounts.filter(({ mountpoint }) => mountpoint.startsWith(`${real}/`)).map(({ id }) => id);
    const sameView = [found.dev, found.ino, mountOf(real, mounts)?.id, ...below, follows].join(' ');
    // The guest sees one file system, so a mount of its own would make all read-only that is mounted below.
    const onlyTop = readonly === true && (follows || below.length > 0);
    const mayShare = real.includes(EMPTY_DIR) || this.#volumes.has(`${sameView} false`);
    const access = readonly === false || (mayShare && !onlyTop) ? false : readonly;
    const key = `${sameView} ${access}`;
    let volume = this.#volumes.get(key);
    if (volume === undefined) {
      volume = this.#share(source, found.isDirectory(), { readonly: access, follow: follows });
      this.#volumes.set(key, volume);
    }
    volume.users.add(container);
    await volume.ready;
    return { path: volume.path, readonly: readonly !== false && !onlyTop };
  }

  #share(source: string, isDirectory: boolean, options: TreeOptions): SharedVolume {
    const number = String(this.#next++);
    const name = join(NAME, number);
    const point = join(this.#directory.points, name);
    mkdirSync(isDirectory ? point : dirname(point), { recursive: true });
    if (!isDirectory) writeFileSync(point, '');
    bindTree(source, join(this.#directory.shared, name), options);
    const shared = join(SHARE_PATH, name);
    const path = isDirectory ? join(GUEST_DIR, number) : shared;
    const ready = isDirectory ? this.#guest.bind(shared, path) : Promise.resolve();
    // Whoever waits for it is told.
    ready.catch(() => {});
    return { name, path, users: new Set(), ready };
  }
}
