import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { isErrno } from '../../src/errors.ts';
import { MS_SHARED, mount, unmount } from '../../src/sys/mount.ts';

const exec = promisify(execFile);
const CGROUPS = '/sys/fs/cgroup';
const END_MS = 20_000;

/** Removes a link if it is there. */
export async function removeLink(name: string): Promise<void> {
  if (existsSync(`/sys/class/net/${name}`)) await exec('ip', ['link', 'del', name]);
}

/** A fresh directory on a shared mount of its own: where a volume must be whose mounts are to propagate. */
export async function sharedDirectory(): Promise<{ dir: string; remove(): Promise<void> }> {
  const dir = await mkdtemp(path.join(tmpdir(), 'berth-shared-'));
  mount('tmpfs', dir, 'tmpfs', 0);
  mount(null, dir, null, MS_SHARED);
  return {
    dir,
    remove: async () => {
      unmount(dir, { lazy: true });
      await rmdir(dir);
    },
  };
}

/** Directories of a cgroup path (`/a/b`), one in each hierarchy that has it; on cgroup v2 there is but one. */
export async function cgroupDirs(name: string): Promise<string[]> {
  const tops = [CGROUPS, ...(await readdir(CGROUPS)).map((entry) => path.join(CGROUPS, entry))];
  return [...new Set(tops)].map((top) => path.join(top, name)).filter((dir) => existsSync(dir));
}

/** Removes a cgroup path with all below it from every hierarchy. @returns those with processes in them */
export async function removeCgroups(name: string): Promise<string[]> {
  const busy: string[] = [];
  const remove = async (dir: string): Promise<void> => {
    for (const entry of await readdir(dir, { withFileTypes: true })) {
      if (entry.isDirectory()) await remove(path.join(dir, entry.name));
    }
    await rmdir(dir).catch((e: unknown) => {
      if (!isErrno(e, 'EBUSY')) throw e;
      busy.push(`cgroup in use: ${dir}`);
    });
  };
  for (const dir of await cgroupDirs(name)) await remove(dir);
  return busy;
}

/** Command lines by pid, of all processes of the machine that have one. */
export async function commandLines(): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (line !== '') found.set(Number(name), line.replaceAll('\0', ' ').trim());
  }
  return found;
}

/** Kills all that runs below a cgroup path, and waits until it is gone. @returns a line for each */
export async function killCgroup(name: string): Promise<string[]> {
  const killed: string[] = [];
  for (const [pid, line] of await commandLines()) {
    const cgroup = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '');
    if (!cgroup.includes(`:${name}/`)) continue;
    killed.push(`process ${pid}: ${line}`);
    try {
      process.kill(pid, 'SIGKILL');
    } catch (e: unknown) {
      if (!isErrno(e, 'ESRCH')) throw e;
    }
    for (const since = Date.now(); existsSync(`/proc/${pid}/exe`) && Date.now() - since < END_MS; ) {
      await delay(20);
    }
  }
  return killed;
}
