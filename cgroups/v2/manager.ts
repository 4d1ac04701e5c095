import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import * as cpuset from '../cpuset.ts';
import { errnoOf, readOptional, write, writeOptional } from '../io.ts';
import { KeptFiles } from '../kept-files.ts';
import { killTree } from '../kill.ts';
import { normaliseBelowRoot, normalisePath } from '../naming.ts';
import * as pids from '../pids.ts';
import { psiStats } from '../psi.ts';
import { v2Properties } from '../systemd/properties.ts';
import type { Units } from '../systemd/units.ts';
import { DEFAULT_DEADLINE_MS, makeDir, missingDirs, procsIn, procsOf, removeTree, subtree } from '../tree.ts';
import type { CgroupDetails, CgroupManager, CgroupUsage, Resources } from '../types.ts';
import * as cpu from './cpu.ts';
import { readDetails } from './details.ts';
import * as freezer from './freezer.ts';
import * as hugetlb from './hugetlb.ts';
import * as memory from './memory.ts';
import * as unified from './unified.ts';

/** Manager of the unified hierarchy mounted at `root`. */
export class V2Manager implements CgroupManager {
  readonly mode = 'v2';
  readonly #root: string;
  readonly #units: Units | undefined;
  readonly #files = new KeptFiles();

  /** @param units given with the systemd driver */
  constructor(root: string, units?: Units) {
    this.#root = root;
    this.#units = units;
  }

  missing(path: string): string[] {
    if (this.#units !== undefined) return [];
    return missingDirs(this.#root, this.#own(path));
  }

  async create(path: string): Promise<void> {
    for (const dir of this.missing(path)) {
      await enableControllers(dirname(dir));
      await makeDir(dir);
    }
  }

  async attach(path: string, pid: number): Promise<void> {
    await write(this.#own(path), 'cgroup.procs', `${pid}`);
  }

  async join(path: string, pid: number): Promise<void> {
    if (this.#units !== undefined) return this.#units.startScope(path, pid);
    await this.create(path);
    await this.attach(path, pid);
  }

  async leave(pid: number): Promise<void> {
    await write(this.#root, 'cgroup.procs', `${pid}`);
  }

  exists(path: string): boolean {
    return existsSync(this.#dir(path));
  }

  procs(path: string): number[] {
    return procsOf([this.#dir(path)]);
  }

  usage(path: string): CgroupUsage | undefined {
    const dir = this.#dir(path);
    const timestampNs = BigInt(Date.now()) * 1_000_000n;
    const { read } = this.#files;
    const used = cpu.stats(dir, read);
    // Every cgroup has cpu.stat.
    if (used.usageNs === undefined && !existsSync(dir)) return undefined;
    return { timestampNs, cpu: used, memory: memory.stats(dir, read), psi: psiStats(dir, read) };
  }

  details(path: string, pageSizes: readonly string[]): CgroupDetails | undefined {
    const dir = this.#dir(path);
    const { read, readLimit } = this.#files;
    const timestampNs = BigInt(Date.now()) * 1_000_000n;
    const own = readDetails(dir, pageSizes, { read, readLimit });
    if (own.cpu.usageNs === undefined && !existsSync(dir)) return undefined;
    return { timestampNs, ...own, processes: procsIn(subtree(dir), read) };
  }

  cpuUsageNs(path: string): bigint | undefined {
    return cpu.usageNs(this.#dir(path), this.#files.read);
  }

  tasks(path: string): bigint | undefined {
    return pids.current(this.#dir(path), this.#files.read);
  }

  oomKills(path: string): bigint | undefined {
    return memory.oomKills(this.#dir(path));
  }

  readResources(path: string): Resources {
    const dir = this.#dir(path);
    return {
      ...cpu.readResources(dir),
      ...cpuset.readResources(dir),
      ...memory.readResources(dir),
      ...pids.readResources(dir),
    };
  }

  retain(paths: Iterable<string>): void {
    this.#files.retain(new Set([...paths].map((path) => this.#dir(path))));
  }

  async update(path: string, r: Resources): Promise<void> {
    const dir = this.#own(path);
    try {
      await this.#update(path, dir, r);
    } finally {
      this.#files.forget(dir);
    }
  }

  async #update(path: string, dir: string, r: Resources): Promise<void> {
    if (r.unified !== undefined) unified.checkUnified(r.unified);
    // systemd writes its limits at once, so what would OOM-kill is refused before it hears of it.
    memory.checkFits(dir, r);
    await this.#units?.set(path, v2Properties(r, this.readResources(path)));
    for (const controller of [cpuset, cpu, memory, pids, hugetlb]) await controller.update(dir, r);
    if (r.unified !== undefined) await unified.update(dir, r.unified);
  }

  async freeze(path: string, signal = AbortSignal.timeout(DEFAULT_DEADLINE_MS)): Promise<void> {
    await freezer.freeze(this.#own(path), signal);
  }

  async thaw(path: string): Promise<void> {
    await freezer.thaw(this.#own(path));
  }

  async kill(path: string, signal = AbortSignal.timeout(DEFAULT_DEADLINE_MS)): Promise<void> {
    const dir = this.#own(path);
    await killTree(
      {
        path,
        dirs: [dir],
        // Since kernel 5.14; it catches forks too. Without it the loop does the work.
        killAtOnce: async () => {
          await writeOptional(dir, 'cgroup.kill', '1');
        },
        freeze: () => freezer.freeze(dir, AbortSignal.timeout(200)).catch(() => undefined),
        thaw: () => freezer.thaw(dir),
      },
      signal,
    );
  }

  async remove(path: string, signal = AbortSignal.timeout(DEFAULT_DEADLINE_MS)): Promise<void> {
    const dir = this.#own(path);
    this.#files.forget(dir);
    await removeTree(dir, signal);
  }

  #dir(path: string): string {
    return this.#root + normalisePath(path);
  }

  /** Like #dir, for changing the cgroup. */
  #own(path: string): string {
    return this.#root + normaliseBelowRoot(path);
  }
}

/** How the kernel refuses to enable a controller: see the rules of cgroup-v2.rst on internal processes and threads. */
const REFUSALS = new Set(['EBUSY', 'ENOTSUP', 'EINVAL', 'ENOENT']);

/**
 * Hands every controller that a cgroup has to its children. One write each: the kernel refuses a
 * combined write as a whole, and a single controller may be refused (EBUSY in a cgroup with processes
 * of its own) that the limits at hand do not need.
 */
async function enableControllers(dir: string): Promise<void> {
  const available = (readOptional(dir, 'cgroup.controllers') ?? '').trim().split(/\s+/);
  const enabled = new Set((readOptional(dir, 'cgroup.subtree_control') ?? '').trim().split(/\s+/));
  for (const controller of available) {
    if (controller === '' || enabled.has(controller)) continue;
    try {
      await writeOptional(dir, 'cgroup.subtree_control', `+${controller}`);
    } catch (e) {
      if (!REFUSALS.has(errnoOf(e) ?? '')) throw e;
    }
  }
}
