import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { listMounts } from '../../src/sys/mount.ts';
import type { Berthd } from './berthd.ts';
import { cgroupDirs, commandLines } from './host.ts';

/** What the kernel takes down by itself, a moment after its last user: a veth, a cgroup, a process. */
const SETTLE_MS = 5_000;

/**
 * What pods have left of themselves on the machine, one line each: empty when they are removed without a
 * trace. Things that the kernel is still taking down are waited for.
 */
export async function leftovers(berthd: Berthd): Promise<string[]> {
  for (const since = Date.now(); ; await delay(50)) {
    const left = await look(berthd);
    if (left.length === 0 || Date.now() - since > SETTLE_MS) return left;
  }
}

async function look(berthd: Berthd): Promise<string[]> {
  const { dir, bridge, cgroupParent } = berthd;
  return [
    ...(await processes(berthd)),
    ...listMounts(dir)
      // The parent mount of namespace pins lives as long as the daemon.
      .filter(({ mountpoint }) => mountpoint !== path.join(dir, 'state/sandboxes'))
      .map(({ mountpoint }) => `mount: ${mountpoint}`),
    ...(await names(`/sys/class/net/${bridge}/brif`)).map((name) => `link: ${name}`),
    ...(await leases(path.join(dir, 'ipam'))),
    ...(await below(cgroupParent)),
    ...(await files(dir)),
  ];
}

/** Processes whose command line or mount table names the daemon's directory, or that are in its cgroups. */
async function processes({ dir, cgroupParent, pid }: Berthd): Promise<string[]> {
  const left: string[] = [];
  for (const [other, line] of await commandLines()) {
    if (other === process.pid || other === pid) continue;
    const cgroup = await readFile(`/proc/${other}/cgroup`, 'utf8').catch(() => '');
    if (line.includes(`${dir}/`) || cgroup.includes(`${cgroupParent}/`))
      left.push(`process ${other}: ${line}`);
  }
  return left;
}

async function leases(dir: string): Promise<string[]> {
  const left: string[] = [];
  for (const network of await names(dir)) {
    for (const name of await names(path.join(dir, network))) {
      if (name !== 'lock' && !name.startsWith('last_reserved_ip')) left.push(`lease: ${name}`);
    }
  }
  return left;
}

async function below(cgroupParent: string): Promise<string[]> {
  const left: string[] = [];
  for (const dir of await cgroupDirs(cgroupParent)) {
    for (const entry of await readdir(dir, { withFileTypes: true })) {
      if (entry.isDirectory()) left.push(`cgroup: ${path.join(dir, entry.name)}`);
    }
  }
  return left;
}

async function files(dir: string): Promise<string[]> {
  const left: string[] = [];
  for (const place of [
    'state/sandboxes',
    'state/containers',
    'state/exits',
    'root/containers',
    'state/runtimes',
  ]) {
    for (const name of await names(path.join(dir, place))) {
      if (place !== 'state/runtimes') left.push(`file: ${place}/${name}`);
      else
        left.push(...(await names(path.join(dir, place, name))).map((id) => `file: ${place}/${name}/${id}`));
    }
  }
  return left;
}

async function names(dir: string): Promise<string[]> {
  return existsSync(dir) ? readdir(dir) : [];
}
