import { readFile, rm, writeFile } from 'node:fs/promises';
import { type CgroupDriver, cgroupName, detectCgroups } from '../../../cgroups/index.ts';
import { isErrno } from '../../errors.ts';
import type { HostCpus } from './cpuset.ts';
import type { VmDirectory } from './directory.ts';

/** The kernel lets go of a cgroup a moment after its last process; milliseconds. */
const REMOVE_MS = 5_000;

/**
 * Puts this process, and with it all that it starts, into the cgroup that a spec names: the pod's limits are to hold
 * for the hypervisor and its helpers as well. With systemd's form of the name systemd is asked for a scope, since what
 * others make below its slices is its to take away.
 *
 * @throws CgroupError
 */
export async function joinCgroup(directory: VmDirectory, cgroupsPath: string): Promise<void> {
  if (cgroupsPath === '') return;
  const { driver, path } = placeOf(cgroupsPath);
  const cgroups = detectCgroups().manager(driver);
  // Somebody else's, into which a container was put, is not taken down with it.
  if (!cgroups.exists(path)) await writeFile(directory.cgroup, path);
  await cgroups.join(path, process.pid);
}

/**
 * Keeps all that is in a machine's cgroup on these processors and memory nodes. Nothing without a cgroup of its own.
 *
 * @throws CgroupError, with the kernel's word on processors that the host or the pod does not have
 */
export async function restrictCpus(cgroupsPath: string, { cpus, mems }: HostCpus): Promise<void> {
  if (cgroupsPath === '' || (cpus === '' && mems === '')) return;
  const { driver, path } = placeOf(cgroupsPath);
  await detectCgroups().manager(driver).update(path, { cpusetCpus: cpus, cpusetMems: mems });
}

/**
 * Removes the cgroup that was made for a machine; its parents are whoever's who manages pods. Repeatable.
 *
 * @throws CgroupError ETIMEDOUT while a process is in it
 */
export async function removeCgroup(directory: VmDirectory): Promise<void> {
  const path = await madeCgroup(directory);
  if (path === undefined) return;
  await detectCgroups().manager('cgroupfs').remove(path, AbortSignal.timeout(REMOVE_MS));
}

/** Leaves the cgroup that was made for the machine, so that it can be removed. */
export async function leaveCgroup(directory: VmDirectory): Promise<void> {
  if ((await madeCgroup(directory)) === undefined) return;
  try {
    await detectCgroups().manager('cgroupfs').leave(process.pid);
  } catch {
    // Where there is no way out (a daemon in a container) it stays behind, empty: whoever manages pods removes it.
    await rm(directory.cgroup, { force: true });
  }
}

/** Whether the OOM killer has struck in the machine's cgroup. What cannot be told is no. */
export async function isOutOfMemory(directory: VmDirectory): Promise<boolean> {
  try {
    const path = await madeCgroup(directory);
    if (path === undefined) return false;
    return (detectCgroups().manager('cgroupfs').oomKills(path) ?? 0n) > 0n;
  } catch {
    return false;
  }
}

async function madeCgroup(directory: VmDirectory): Promise<string | undefined> {
  return readFile(directory.cgroup, 'utf8').catch((e: unknown) => {
    if (isErrno(e, 'ENOENT')) return undefined;
    throw e;
  });
}

/** `slice:prefix:name` as OCI runtimes have it under systemd, or a path. */
function placeOf(cgroupsPath: string): { driver: CgroupDriver; path: string } {
  const [slice, prefix, name] = cgroupsPath.split(':');
  if (slice === undefined || prefix === undefined || name === undefined) {
    return { driver: 'cgroupfs', path: cgroupsPath };
  }
  return { driver: 'systemd', path: cgroupName({ driver: 'systemd', parent: slice, prefix, id: name }).path };
}
