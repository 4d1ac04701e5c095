import { type ErrorKind, kindOf, messageOf } from '../../errors.ts';
import { KeyedMutex } from '../../util/keyed-mutex.ts';
import type { GuestMount } from '../protocol/messages.ts';
import type { Vm } from '../types.ts';
import type { GuestAgent, Log } from './machine.ts';
import type { RootDisk } from './rootfs.ts';

/** Where the agent mounts disks. */
const GUEST_DIR = '/run/berth/disks';
/** A guest that is busy takes its time to find a disk, and to let go of one; milliseconds. */
const ATTACH_MS = 60_000;
const DETACH_MS = 20_000;
/** What is said of a machine that has ended: all of it is gone, then. */
const GONE: readonly ErrorKind[] = ['unavailable', 'cancelled'];

interface Undo {
  what: string;
  undo: (signal: AbortSignal) => Promise<unknown>;
}

/** A read-only disk in the guest, for all containers that are made of it. */
interface Shared {
  target: string;
  users: number;
  undo: Undo[];
}

/** What root file systems on disks are made of in a running machine. */
export class RootDisks {
  readonly #vm: Pick<Vm, 'addDisk' | 'removeDisk'>;
  readonly #agent: GuestAgent;
  readonly #log: Log;
  readonly #turns = new KeyedMutex();
  /** By the file on the host. */
  readonly #shared = new Map<string, Shared>();
  /** By container: what takes its root file system away again, the last first. */
  readonly #containers = new Map<string, Undo[]>();
  #count = 0;

  constructor(vm: Pick<Vm, 'addDisk' | 'removeDisk'>, agent: GuestAgent, log: Log) {
    this.#vm = vm;
    this.#agent = agent;
    this.#log = log;
  }

  /**
   * Puts a container's root file system together.
   *
   * @param disks the topmost first; one can be written to
   * @returns its path in the guest
   * @throws BerthError `exhausted` when the machine has no place for one more disk; the guest's. Nothing is left then
   */
  attach(id: string, disks: readonly RootDisk[]): Promise<string> {
    return this.#inTurn(async () => {
      const undo: Undo[] = [];
      const signal = AbortSignal.timeout(ATTACH_MS);
      this.#containers.set(id, undo);
      try {
        return await this.#attach(`${GUEST_DIR}/${id}`, disks, undo, signal);
      } catch (e: unknown) {
        await this.#detach(id);
        throw e;
      }
    });
  }

  /** Takes it away. Repeatable; never rejects: what the guest does not let go ends with the machine. */
  detach(id: string): Promise<void> {
    return this.#inTurn(() => this.#detach(id));
  }

  /** A disk that one container lets go another may be about to take. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    return this.#turns.run('', work);
  }

  async #attach(dir: string, disks: readonly RootDisk[], undo: Undo[], signal: AbortSignal): Promise<string> {
    const lowers: string[] = [];
    for (const disk of disks.filter(({ readOnly }) => readOnly)) {
      lowers.push(await this.#use(disk, undo, signal));
    }
    const own = disks.find(({ readOnly }) => !readOnly);
    const root = `${dir}/root`;
    const [only] = lowers;
    if (own === undefined && only !== undefined && lowers.length === 1) return only;
    const options = [`lowerdir=${lowers.join(':')}`];
    if (own !== undefined) {
      const target = lowers.length === 0 ? root : `${dir}/disk`;
      await this.#plug(own, target, undo, signal);
      if (lowers.length === 0) return root;
      options.push(`upperdir=${target}/upper`, `workdir=${target}/work`);
    }
    await this.#mount({ source: 'overlay', type: 'overlay', target: root, options }, undo, signal);
    return root;
  }

  async #use(disk: RootDisk, undo: Undo[], signal: AbortSignal): Promise<string> {
    let shared = this.#shared.get(disk.path);
    if (shared === undefined) {
      shared = { target: `${GUEST_DIR}/shared-${++this.#count}`, users: 0, undo: [] };
      try {
        await this.#plug(disk, shared.target, shared.undo, signal);
      } catch (e: unknown) {
        await this.#undoAll(shared.undo);
        throw e;
      }
      this.#shared.set(disk.path, shared);
    }
    const used = shared;
    used.users++;
    undo.push({
      what: disk.path,
      undo: async () => {
        if (--used.users > 0) return;
        this.#shared.delete(disk.path);
        await this.#undoAll(used.undo);
      },
    });
    return used.target;
  }

  /** Adds a disk to the machine and mounts it. */
  async #plug(
    { path, type, readOnly }: RootDisk,
    target: string,
    undo: Undo[],
    signal: AbortSignal,
  ): Promise<void> {
    const id = `root${++this.#count}`;
    const source = await this.#vm.addDisk({ id, path, format: 'raw', readOnly }, signal);
    undo.push({ what: path, undo: (patience) => this.#vm.removeDisk(id, patience) });
    // Inode tables that nothing uses would be written out, and what is deleted would stay on the host's disk.
    const writable = type === 'ext4' ? ['noinit_itable', 'discard'] : [];
    await this.#mount({ source, type, target, options: readOnly ? ['ro'] : writable }, undo, signal);
  }

  async #mount(mount: GuestMount, undo: Undo[], signal: AbortSignal): Promise<void> {
    await this.#agent.call('mounts', { add: [mount] }, signal);
    const { target } = mount;
    undo.push({ what: target, undo: (patience) => this.#agent.call('unmount', { target }, patience) });
  }

  async #detach(id: string): Promise<void> {
    const undo = this.#containers.get(id) ?? [];
    this.#containers.delete(id);
    await this.#undoAll(undo);
  }

  /** A disk that is still mounted must not be taken away: after the first failure the rest is left. */
  async #undoAll(steps: Undo[]): Promise<void> {
    for (const { what, undo } of steps.splice(0).reverse()) {
      try {
        await undo(AbortSignal.timeout(DETACH_MS));
      } catch (e: unknown) {
        if (!GONE.includes(kindOf(e))) this.#log('warn', `${what} stays in the guest: ${messageOf(e)}`);
        return;
      }
    }
  }
}
