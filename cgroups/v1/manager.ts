import { existsSync } from 'node:fs';
import { join } from 'node:path';
import * as cpuset from '../cpuset.ts';
import { CgroupError, write, writeOptional } from '../io.ts';
import { KeptFiles } from '../kept-files.ts';
import { killTree } from '../kill.ts';
import type { Hierarchy } from '../mountinfo.ts';
import { normaliseBelowRoot, normalisePath } from '../naming.ts';
import { flatReader } from '../parse.ts';
import * as pids from '../pids.ts';
import { psiStats } from '../psi.ts';
import { v1Properties } from '../systemd/properties.ts';
import type { Units } from '../systemd/units.ts';
import { DEFAULT_DEADLINE_MS, makeDir, missingDirs, procsIn, procsOf, removeTree, subtree } from '../tree.ts';
import type { CgroupDetails, CgroupManager, CgroupMode, CgroupUsage, PsiStats, Resources } from '../types.ts';
import * as cpu from './cpu.ts';
import { inheritCpuset } from './cpuset.ts';
import * as freezer from './freezer.ts';
import * as hugetlb from './hugetlb.ts';
import * as io from './io.ts';
import * as memory from './memory.ts';

/** A directory in which no file is: that of a controller which the host does not have. */
const NOWHERE = '/nonexistent';

/**
 * Manager of v1 hierarchies, and of the v2 tree mounted beside them on a hybrid host: OCI runtimes
 * join containers to it, which gives us its cgroup.kill and its pressure files.
 */
export class V1Manager implements CgroupManager {
  readonly mode: CgroupMode;
  readonly #hierarchies: readonly Hierarchy[];
  readonly #unified: string | undefined;
  readonly #mountOf: ReadonlyMap<string, string>;
  readonly #units: Units | undefined;
  readonly #files = new KeptFiles();

  /** @param units given with the systemd driver */
  constructor(hierarchies: readonly Hierarchy[], units?: Units) {
    this.#hierarchies = hierarchies;
    this.#units = units;
    this.#unified = hierarchies.find((h) => h.version === 2)?.mountpoint;
    this.mode = this.#unified === undefined ? 'v1' : 'hybrid';
    this.#mountOf = new Map(hierarchies.flatMap((h) => h.controllers.map((c) => [c, h.mountpoint] as const)));
  }

  missing(path: string): string[] {
    if (this.#units !== undefined) return [];
    return this.#missing(path);
  }

  async create(path: string): Promise<void> {
    if (this.#units === undefined) await this.#make(path);
  }

  async attach(path: string, pid: number): Promise<void> {
    for (const { dir } of this.#dirs(path)) await write(dir, 'cgroup.procs', `${pid}`);
  }

  async join(path: string, pid: number): Promise<void> {
    await this.#units?.startScope(path, pid);
    // systemd uses but some of the hierarchies; OCI runtimes complete a scope in the others, too.
    await this.#make(path);
    await this.attach(path, pid);
  }

  async leave(pid: number): Promise<void> {
    for (const { mountpoint } of this.#hierarchies) await write(mountpoint, 'cgroup.procs', `${pid}`);
  }

  exists(path: string): boolean {
    const inner = normalisePath(path);
    return this.#hierarchies.some((h) => existsSync(join(h.mountpoint, inner)));
  }

  procs(path: string): number[] {
    // All hierarchies: a privileged container can put a process elsewhere in one of them.
    return procsOf(this.#dirs(path).map(({ dir }) => dir));
  }

  usage(path: string): CgroupUsage | undefined {
    const [memoryDir, cpuacct] = [this.#dir(path, 'memory'), this.#dir(path, 'cpuacct')];
    const timestampNs = BigInt(Date.now()) * 1_000_000n;
    const usageNs = cpuacct === undefined ? undefined : cpu.usageNs(cpuacct, this.#files.read);
    const used = memory.stats(memoryDir ?? NOWHERE, this.#files.read);
    if (usageNs === undefined && used.usageBytes === undefined && !this.exists(path)) return undefined;
    return { timestampNs, cpu: { usageNs }, memory: used, psi: this.#psi(path) };
  }

  details(path: string, pageSizes: readonly string[]): CgroupDetails | undefined {
    const { read, readLimit } = this.#files;
    const inner = normalisePath(path);
    const dir = (controller: string) => {
      const mount = this.#mountOf.get(controller);
      return mount === undefined ? NOWHERE : mount + inner;
    };
    const timestampNs = BigInt(Date.now()) * 1_000_000n;
    const time = cpu.stats(dir('cpu'), dir('cpuacct'), read);
    const stat = memory.readStat(dir('memory'), read);
    const used = memory.stats(dir('memory'), read, stat);
    if (time.usageNs === undefined && used.usageBytes === undefined && !this.exists(path)) return undefined;
    // One hierarchy will do: OCI runtimes put a process into the same place of all.
    const inside = subtree(dir(this.#mountOf.has('memory') ? 'memory' : 'pids'));
    return {
      timestampNs,
      cpu: time,
      cpuLimits: cpu.readResources(dir('cpu'), readLimit),
      memory: used,
      memoryDetails: memory.details(dir('memory'), read, stat, readLimit),
      hugepages: hugetlb.stats(dir('hugetlb'), pageSizes, read),
      pids: pids.stats(dir('pids'), read, readLimit),
      io: io.stats(dir('blkio'), read),
      psi: this.#psi(path),
      oomKills: this.#mountOf.has('memory') ? memory.oomKills(inside, read) : undefined,
      processes: procsIn(inside, read),
    };
  }

  cpuUsageNs(path: string): bigint | undefined {
    const dir = this.#dir(path, 'cpuacct');
    return dir === undefined ? undefined : cpu.usageNs(dir, this.#files.read);
  }

  tasks(path: string): bigint | undefined {
    const dir = this.#dir(path, 'pids');
    return dir === undefined ? undefined : pids.current(dir, this.#files.read);
  }

  oomKills(path: string): bigint | undefined {
    const dir = this.#dir(path, 'memory');
    return dir === undefined ? undefined : memory.oomKills(subtree(dir));
  }

  readResources(path: string): Resources {
    const read = (controller: string, from: (dir: string) => Resources): Resources => {
      const dir = this.#dir(path, controller);
      return dir === undefined ? {} : from(dir);
    };
    return {
      ...read('cpu', cpu.readResources),
      ...read('cpuset', cpuset.readResources),
      ...read('memory', memory.readResources),
      ...read('pids', pids.readResources),
    };
  }

  retain(paths: Iterable<string>): void {
    const dirs = new Set<string>();
    for (const path of paths) for (const { dir } of this.#dirs(path)) dirs.add(dir);
    this.#files.retain(dirs);
  }

  async update(path: string, r: Resources): Promise<void> {
    try {
      await this.#update(path, r);
    } finally {
      this.#forget(path);
    }
  }

  async #update(path: string, r: Resources): Promise<void> {
    if (r.unified !== undefined && Object.keys(r.unified).length > 0) {
      throw new CgroupError('EINVAL', path, 'unified resources need cgroup v2; this host has cgroup v1');
    }
    const apply = async (
      controller: string,
      wanted: boolean,
      to: (dir: string, r: Resources) => Promise<void>,
    ) => {
      if (!wanted) return;
      const dir = this.#dir(path, controller);
      if (dir === undefined) {
        throw new CgroupError(
          'ENOENT',
          path,
          `this host has no cgroup controller "${controller}" to set a limit with`,
        );
      }
      await to(dir, r);
    };
    const given = (...values: unknown[]) => values.some((v) => v !== undefined);
    await this.#units?.set(path, v1Properties(r, this.readResources(path)));
    await apply('cpuset', given(r.cpusetCpus, r.cpusetMems), cpuset.update);
    await apply('cpu', given(r.cpuShares, r.cpuPeriod, r.cpuQuota), cpu.update);
    await apply('memory', given(r.memoryLimitBytes, r.memorySwapLimitBytes), memory.update);
    await apply('pids', given(r.pidsLimit), pids.update);
    const hugetlbDir = this.#dir(path, 'hugetlb');
    if (hugetlbDir !== undefined) await hugetlb.update(hugetlbDir, r);
  }

  async freeze(path: string, signal = AbortSignal.timeout(DEFAULT_DEADLINE_MS)): Promise<void> {
    const dir = this.#dir(path, 'freezer');
    if (dir === undefined)
      throw new CgroupError('ENOENT', path, 'this host has no cgroup controller "freezer"');
    await freezer.freeze(dir, signal);
  }

  async thaw(path: string): Promise<void> {
    const dir = this.#dir(path, 'freezer');
    if (dir !== undefined) await freezer.thaw(dir);
  }

  async kill(path: string, signal = AbortSignal.timeout(DEFAULT_DEADLINE_MS)): Promise<void> {
    const unified = this.#unified === undefined ? undefined : this.#unified + normaliseBelowRoot(path);
    await killTree(
      {
        path,
        dirs: this.#dirs(path).map(({ dir }) => dir),
        killAtOnce: async () => {
          if (unified !== undefined) await writeOptional(unified, 'cgroup.kill', '1');
        },
        freeze: () => this.freeze(path, AbortSignal.timeout(200)).catch(() => undefined),
        thaw: () => this.thaw(path),
      },
      signal,
    );
  }

  async remove(path: string, signal = AbortSignal.timeout(DEFAULT_DEADLINE_MS)): Promise<void> {
    this.#forget(path);
    await Promise.all(this.#dirs(path).map(({ dir }) => removeTree(dir, signal)));
  }

  #forget(path: string): void {
    for (const { dir } of this.#dirs(path)) this.#files.forget(dir);
  }

  #missing(path: string): string[] {
    return this.#dirs(path).flatMap(({ root, dir }) => missingDirs(root, dir));
  }

  async #make(path: string): Promise<void> {
    const cpusets = this.#mountOf.get('cpuset');
    for (const dir of this.#missing(path)) {
      await makeDir(dir);
      if (cpusets !== undefined && dir.startsWith(`${cpusets}/`)) await inheritCpuset(dir);
    }
  }

  /** Where a cgroup is in each hierarchy, for changing it. */
  #dirs(path: string): { root: string; dir: string }[] {
    const inner = normaliseBelowRoot(path);
    return this.#hierarchies.map((h) => ({ root: h.mountpoint, dir: h.mountpoint + inner }));
  }

  #dir(path: string, controller: string): string | undefined {
    const mount = this.#mountOf.get(controller);
    return mount === undefined ? undefined : mount + normalisePath(path);
  }

  /** Pressure counts only what is in the v2 cgroup, so one without processes says nothing. */
  #psi(path: string): PsiStats | undefined {
    if (this.#unified === undefined) return undefined;
    const dir = this.#unified + normalisePath(path);
    const { read } = this.#files;
    const populated = flatReader(read(dir, 'cgroup.events'))('populated');
    return populated === 1n ? psiStats(dir, read) : undefined;
  }
}
