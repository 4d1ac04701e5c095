import { readFile } from 'node:fs/promises';
import { messageOf } from '../errors.ts';
import type { Services } from '../services.ts';
import { parseMountinfo } from '../sys/mount.ts';
import { isAlive } from '../sys/process-identity.ts';
import { replaceMounts } from '../sys/replace-mounts.ts';
import { VIEW_FILES } from './files.ts';
import { LXCFS_TYPE } from './lxcfs.ts';

/** Between two looks at lxcfs while containers have a view, milliseconds. */
const LOOK_MS = 3_000;

/**
 * Keeps containers' views alive: an lxcfs that is started anew is another file system, and what containers
 * have mounted of the old one answers ENOTCONN for ever. What is out of date is read from the containers' own
 * mount tables, so that it does not matter who was restarted, and when.
 */
export class ViewKeeper {
  readonly #services: Services;
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> | undefined;
  #complained = false;

  constructor(services: Services) {
    this.#services = services;
    this.#timer = setInterval(() => void this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  #look(): Promise<void> {
    this.#looking ??= this.#repair()
      .then(
        () => {
          this.#complained = false;
        },
        (e: unknown) => {
          if (this.#complained) return;
          this.#complained = true;
          this.#services.log.warn(
            { reason: messageOf(e) },
            'containers do not see their share of the machine',
          );
        },
      )
      .finally(() => {
        this.#looking = undefined;
      });
    return this.#looking;
  }

  async #repair(): Promise<void> {
    const { containers, lxcfs } = this.#services;
    const viewing = [...containers.values()].filter((c) => c.resourceView === true && c.exit === undefined);
    if (viewing.length === 0) return;
    await lxcfs.files();
    const { device } = lxcfs;
    if (device === undefined) return;
    for (const { id, init } of viewing) {
      if (init === undefined || !isAlive(init)) continue;
      const stale = await staleFiles(init.pid, device);
      if (stale.length === 0) continue;
      await replaceMounts(init.pid, lxcfs.dir, stale);
      this.#services.log.info({ container: id }, 'lxcfs was started anew; the container sees it again');
    }
  }
}

/** Files of a view that come from another lxcfs than the one on `device`. */
async function staleFiles(pid: number, device: string): Promise<string[]> {
  // A process may go at any moment.
  const mounts = parseMountinfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => ''));
  return VIEW_FILES.filter((file) => {
    const top = mounts.findLast(({ mountpoint }) => mountpoint === file);
    return top?.fstype === LXCFS_TYPE && top.device !== device;
  });
}
