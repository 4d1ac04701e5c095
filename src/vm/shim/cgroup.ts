import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type CgroupManager, cgroupName, detectCgroups, removeIfEmpty } from '../../../cgroups/index.ts';
import { isErrno } from '../../errors.ts';
import type { HostCpus } from './cpuset.ts';
import type { VmDirectory } from './directory.ts';

const PROCS = 'cgroup.procs';

/**
 * Puts this process, and with it all that it starts, into the cgroup that a spec names: the pod's limits are to hold
 * for the hypervisor and its helpers as well. What is made for that is noted in the machine's directory.
 *
 * @throws CgroupError
 */
export async function joinCgroup(directory: VmDirectory, cgroupsPath: string): Promise<void> {
  if (cgroupsPath === '') return;
  const cgroups = manager();
  const path = pathOf(cgroupsPath);
  await writeFile(directory.cgroups, JSON.stringify(cgroups.missing(path)));
  await cgroups.create(path);
  await cgroups.attach(path, process.pid);
}

/**
 * Keeps all that is in a machine's cgroup on these processors and memory nodes. Nothing without a cgroup of its own.
 *
 * @throws CgroupError, with the kernel's word on processors that the host or the pod does not have
 */
export async function restrictCpus(cgroupsPath: string, { cpus, mems }: HostCpus): Promise<void> {
  if (cgroupsPath === '' || (cpus === '' && mems === '')) return;
  await manager().update(pathOf(cgroupsPath), { cpusetCpus: cpus, cpusetMems: mems });
}

/** Removes the cgroups that were made for a machine. Repeatable; one that is in use stays. */
export async function removeCgroups(directory: VmDirectory): Promise<void> {
  await removeIfEmpty(await madeCgroups(directory));
}

/** Leaves the cgroups that were made for the machine, so that they can be removed. */
export async function leaveCgroups(directory: VmDirectory): Promise<void> {
  const roots = new Set((await madeCgroups(directory)).map(rootOf));
  for (const root of roots) {
    // One that does not let it go stays behind, empty, and is whoever's who made its parent.
    await writeFile(join(root, PROCS), String(process.pid)).catch(() => {});
  }
}

/** The root of the hierarchy that a cgroup's directory is in: the only place that takes a process in any case. */
function rootOf(dir: string): string {
  let at = dir;
  while (existsSync(join(dirname(at), PROCS))) at = dirname(at);
  return at;
}

async function madeCgroups(directory: VmDirectory): Promise<string[]> {
  const text = await readFile(directory.cgroups, 'utf8').catch((e: unknown) => {
    if (isErrno(e, 'ENOENT')) return '[]';
    throw e;
  });
  const dirs: unknown = JSON.parse(text);
  return Array.isArray(dirs) ? dirs.filter((dir) => typeof dir === 'string') : [];
}

function manager(): CgroupManager {
  // Under systemd, too: a scope is asked for by whoever makes containers, and this is no container.
  return detectCgroups().manager('cgroupfs');
}

/** `slice:prefix:name` as runc has it under systemd, or a path. */
function pathOf(cgroupsPath: string): string {
  const [slice, prefix, name] = cgroupsPath.split(':');
  if (slice === undefined || prefix === undefined || name === undefined) return cgroupsPath;
  return cgroupName({ driver: 'systemd', parent: slice, prefix, id: name }).path;
}
