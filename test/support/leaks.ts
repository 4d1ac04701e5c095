import { existsSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isErrno } from '../../src/errors.ts';
import { helperMark } from '../../src/sys/helpers.ts';
import { listMounts } from '../../src/sys/mount.ts';
import type { Berthd } from './berthd.ts';
import { cgroupDirs, commandLines } from './host.ts';

/** What the kernel takes down by itself, a moment after its last user: a veth, a cgroup, a process. */
const SETTLE_MS = 20_000;
/** In the environment of every helper process. */
const [HELPER_MARK = ''] = Object.keys(helperMark(''));

/** By what a daemon's things are told from all others. */
export type Owner = Pick<Berthd, 'dir' | 'bridge' | 'cgroupParent'>;

/** What there is on the machine of one daemon and its pods, one line each. */
export interface Traces {
  processes: string[];
  mounts: string[];
  links: string[];
  leases: string[];
  cgroups: string[];
  files: string[];
}

/**
 * What pods have left of themselves on the machine, one line each: empty when they are removed without a
 * trace. Things that the kernel is still taking down are waited for. The daemon itself is running.
 */
export async function leftovers(berthd: Berthd): Promise<string[]> {
  for (const since = Date.now(); ; await delay(50)) {
    const all = await traces(berthd, berthd.pid);
    const left = [
      ...all.processes.map((line) => `process ${line}`),
      // The parent mount of namespace pins lives as long as the daemon.
      ...all.mounts.filter((at) => at !== `${berthd.dir}/state/sandboxes`).map((at) => `mount: ${at}`),
      ...all.links.map((name) => `link: ${name}`),
      ...all.leases.map((name) => `lease: ${name}`),
      ...all.cgroups.map((dir) => `cgroup: ${dir}`),
      ...all.files.map((file) => `file: ${file}`),
    ];
    if (left.length === 0 || Date.now() - since > SETTLE_MS) return left;
  }
}

/** What there is now; `daemonPid` is left out of the processes. */
export async function traces(owner: Owner, daemonPid = 0): Promise<Traces> {
  return {
    processes: await processes(owner, daemonPid),
    mounts: listMounts(owner.dir).map(({ mountpoint }) => mountpoint),
    links: await names(`/sys/class/net/${owner.bridge}/brif`),
    leases: await leases(path.join(owner.dir, 'ipam')),
    cgroups: await below(owner.cgroupParent),
    files: await files(owner.dir),
  };
}

/**
 * Processes whose command line names the daemon's directory, that are in its cgroups, or that hold files of it and
 * are marked as a helper: a keeper of FIFOs is told by nothing else.
 */
async function processes({ dir, cgroupParent }: Owner, daemonPid: number): Promise<string[]> {
  const found: string[] = [];
  for (const [pid, line] of await commandLines()) {
    if (pid === process.pid || pid === daemonPid) continue;
    const cgroup = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '');
    const isOurs =
      line.includes(`${dir}/`) || cgroup.includes(`${cgroupParent}/`) || (await isHelperIn(pid, `${dir}/`));
    if (isOurs) found.push(`${pid}: ${line}`);
  }
  return found;
}

/** Kills what is left of a daemon that has ended. @returns one line each */
export async function endProcesses(owner: Owner): Promise<string[]> {
  const left = await processes(owner, 0);
  for (const line of left) {
    try {
      process.kill(Number.parseInt(line, 10), 'SIGKILL');
    } catch (e: unknown) {
      if (!isErrno(e, 'ESRCH')) throw e;
    }
  }
  return left.map((line) => `process after the end: ${line}`);
}

async function isHelperIn(pid: number, dir: string): Promise<boolean> {
  const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
  if (!environment.includes(HELPER_MARK)) return false;
  for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
    const file = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
    if (file.startsWith(dir)) return true;
  }
  return false;
}

async function leases(dir: string): Promise<string[]> {
  const left: string[] = [];
  for (const network of await names(dir)) {
    for (const name of await names(path.join(dir, network))) {
      if (name !== 'lock' && !name.startsWith('last_reserved_ip')) left.push(name);
    }
  }
  return left;
}

async function below(cgroupParent: string): Promise<string[]> {
  const left: string[] = [];
  for (const dir of await cgroupDirs(cgroupParent)) {
    // The daemon may be removing it right now.
    const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
    left.push(...entries.filter((e) => e.isDirectory()).map((e) => path.join(dir, e.name)));
  }
  return left;
}

async function files(dir: string): Promise<string[]> {
  const left: string[] = [];
  for (const place of ['state/sandboxes', 'state/containers', 'state/exits', 'root/containers']) {
    left.push(...(await names(path.join(dir, place))).map((name) => `${place}/${name}`));
  }
  for (const handler of await names(path.join(dir, 'state/runtimes'))) {
    const place = `state/runtimes/${handler}`;
    left.push(...(await names(path.join(dir, place))).map((id) => `${place}/${id}`));
  }
  return left;
}

async function names(dir: string): Promise<string[]> {
  return existsSync(dir) ? readdir(dir) : [];
}
