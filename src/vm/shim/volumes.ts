import { mkdirSync, writeFileSync } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BerthError } from '../../errors.ts';
import { bindTree } from '../../sys/idmap.ts';
import { listMounts, mountOf } from '../../sys/mount.ts';
import { SHARE_PATH } from '../protocol/messages.ts';
import { removeShared } from './share.ts';

/** A file or directory of the host that a container is to see. */
export interface HostVolume {
  source: string;
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

interface SharedVolume {
  place: string;
  path: string;
  /** Ids of containers. */
  users: Set<string>;
}

const NAME = 'volumes';
/** The kubelet's directories of `emptyDir` volumes: the pod's own, for which the guest's word is enough. */
const EMPTY_DIR = '/kubernetes.io~empty-dir/';

/**
 * The volumes of a machine's containers. What several of them mount is shared once: virtiofsd tells files apart by
 * their mounts too, so that a socket, a FIFO or a lock in a volume would otherwise be another one to each container.
 */
export class SharedVolumes {
  readonly #dir: string;
  /** By all that makes two mounts see the same. */
  readonly #volumes = new Map<string, SharedVolume>();
  #next = 0;

  /** @param shared the directory that the guest sees */
  constructor(shared: string) {
    this.#dir = join(shared, NAME);
  }

  /** @throws BerthError `unimplemented` for a device; SyscallError. What was added is left to {@link remove}. */
  async add(container: string, volumes: readonly HostVolume[]): Promise<GuestVolume[]> {
    const added: GuestVolume[] = [];
    for (const volume of volumes) added.push(await this.#add(container, volume));
    return added;
  }

  /** Takes away what only this container had. Repeatable. @throws SyscallError */
  async remove(container: string): Promise<void> {
    for (const [key, { place, users }] of this.#volumes) {
      if (!users.delete(container) || users.size > 0) continue;
      this.#volumes.delete(key);
      await removeShared(place);
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
      volume = this.#make(found.isDirectory());
      this.#volumes.set(key, volume);
      bindTree(source, volume.place, { readonly: access, follow: follows });
    }
    volume.users.add(container);
    return { path: volume.path, readonly: readonly !== false && !onlyTop };
  }

  #make(isDirectory: boolean): SharedVolume {
    const name = String(this.#next++);
    const place = join(this.#dir, name);
    mkdirSync(isDirectory ? place : this.#dir, { recursive: true });
    if (!isDirectory) writeFileSync(place, '');
    return { place, path: `${SHARE_PATH}/${NAME}/${name}`, users: new Set() };
  }
}
