import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { cgroupDirs } from '../support/host.ts';
import { type Owner, traces } from '../support/leaks.ts';
import { type Holder, holdersOf } from './namespaces.ts';

/** What is counted, as it is called in the table. */
export const COUNTED = {
  processes: 'processes',
  mounts: 'mounts',
  namespaces: 'namespaces',
  links: 'network links',
  cgroups: 'cgroup directories',
  leases: 'IP address leases',
  files: 'state directories',
} as const;

/** Everything on the machine that is there because of the demo, by kind, one line each. */
export type Census = Record<keyof typeof COUNTED, string[]>;

/** The kernel takes links and cgroups down a moment after their last user. */
const SETTLE_MS = 5_000;

/**
 * Counts what the demo has made. Its first count, while the pod runs, tells what to look for later: the
 * kernel gives numbers of namespaces and names of links to others as soon as they are free.
 */
export class Counter {
  readonly #owner: Owner;
  #links: string[] = [];
  #holders: Holder[] = [];

  constructor(owner: Owner) {
    this.#owner = owner;
  }

  /** What there is now. */
  async first(namespaces: ReadonlySet<string>): Promise<Census> {
    this.#holders = await holdersOf(namespaces, this.#owner.dir);
    this.#links = [this.#owner.bridge, ...(await traces(this.#owner)).links];
    return this.#count();
  }

  /** What is still there, after what the kernel is taking down has been waited for. */
  async last(): Promise<Census> {
    for (const since = Date.now(); ; await delay(50)) {
      const census = await this.#count();
      const done = Object.values(census).every((list) => list.length === 0);
      if (done || Date.now() - since > SETTLE_MS) return census;
    }
  }

  async #count(): Promise<Census> {
    const { dir, cgroupParent } = this.#owner;
    const { processes, mounts, leases, cgroups, files } = await traces(this.#owner);
    const known = new Set(this.#holders.map(({ namespace }) => namespace));
    const before = new Set(this.#holders.map(({ by }) => by));
    const held = (await holdersOf(known, dir)).filter(({ by }) => before.has(by));
    return {
      processes,
      mounts,
      namespaces: [...new Set(held.map(({ namespace }) => namespace))],
      links: this.#links.filter((name) => existsSync(`/sys/class/net/${name}`)),
      cgroups: [...(await cgroupDirs(cgroupParent)), ...cgroups],
      leases,
      files: existsSync(dir) ? [dir, ...files] : [],
    };
  }
}
