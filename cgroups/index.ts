import { readFileSync, statfsSync } from 'node:fs';
import { AttachLock } from './attach-lock.ts';
import { type CgroupDirectory, dumpDirectories } from './dump.ts';
import { CgroupError } from './io.ts';
import { parseHierarchies } from './mountinfo.ts';
import { normalisePath } from './naming.ts';
import { isSystemdBooted } from './systemd/slice.ts';
import { systemdUnits, type Units } from './systemd/units.ts';
import type { CgroupDriver, CgroupManager, CgroupMode } from './types.ts';
import { V1Manager } from './v1/manager.ts';
import { V2Manager } from './v2/manager.ts';

export { AttachLock } from './attach-lock.ts';
export type { CgroupDirectory } from './dump.ts';
export { CgroupError } from './io.ts';
export { type CgroupName, type CgroupNameInput, cgroupName } from './naming.ts';
export { removeIfEmpty } from './tree.ts';
export type * from './types.ts';
export { type OwnDetails, parseDetails } from './v2/details.ts';
export { unifiedFiles } from './v2/unified.ts';
export { sharesToWeight, weightToShares } from './weight.ts';

/** CGROUP2_SUPER_MAGIC of linux/magic.h. */
const CGROUP2_MAGIC = 0x63677270;

export interface Cgroups {
  readonly mode: CgroupMode;
  /** @throws CgroupError ENOENT when systemd is asked for and does not run this host */
  manager(driver: CgroupDriver): CgroupManager;
  readonly attachLock: AttachLock;
  /** All files of a cgroup, by hierarchy; those in which it does not exist are left out. */
  dump(path: string): CgroupDirectory[];
}

export interface DetectOptions {
  /** Where the hierarchies are mounted. */
  readonly root?: string;
  readonly mountinfoPath?: string;
  /** File system type as statfs(2) reports it. */
  readonly fsType?: (path: string) => number;
}

/**
 * Finds out once how this host mounts its control groups.
 * @throws CgroupError ENOENT when none are mounted below the root
 */
export function detectCgroups(options: DetectOptions = {}): Cgroups {
  const { root = '/sys/fs/cgroup', mountinfoPath = '/proc/self/mountinfo' } = options;
  const fsType = options.fsType ?? ((path: string) => statfsSync(path).type);
  if (fsType(root) === CGROUP2_MAGIC) {
    return {
      mode: 'v2',
      manager: (driver) => new V2Manager(root, unitsFor(driver)),
      attachLock: AttachLock.of([{ mountpoint: root, controllers: [], version: 2 }]),
      dump: (path) => dumpDirectories([root + normalisePath(path)]),
    };
  }
  const hierarchies = parseHierarchies(readFileSync(mountinfoPath, 'utf8'), root);
  if (!hierarchies.some((h) => h.version === 1)) {
    throw new CgroupError('ENOENT', root, `no control groups are mounted at ${root}`);
  }
  const mode = hierarchies.some((h) => h.version === 2) ? 'hybrid' : 'v1';
  return {
    mode,
    manager: (driver) => new V1Manager(hierarchies, unitsFor(driver)),
    attachLock: AttachLock.of(hierarchies),
    dump: (path) => dumpDirectories(hierarchies.map((h) => h.mountpoint + normalisePath(path))),
  };
}

function unitsFor(driver: CgroupDriver): Units | undefined {
  if (driver === 'cgroupfs') return undefined;
  if (!isSystemdBooted()) {
    throw new CgroupError(
      'ENOENT',
      '/run/systemd/system',
      'cgroup_driver is "systemd", but systemd does not run this host; set it to "cgroupfs"',
    );
  }
  return systemdUnits();
}

/** The driver to use when none is configured: systemd's where systemd owns the tree, else cgroupfs. */
export function defaultDriver(runDir?: string): CgroupDriver {
  return isSystemdBooted(runDir) ? 'systemd' : 'cgroupfs';
}
