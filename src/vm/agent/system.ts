import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, MS_SHARED, mount } from '../../sys/mount.ts';
import { powerOff, reset } from '../../sys/power.ts';

/** Where the agent's containers have their control groups. */
export const CGROUP_ROOT = '/sys/fs/cgroup';
export const CONTAINERS_CGROUP = '/berth';
/** What the agent keeps: gone with the machine. */
export const STATE_DIR = '/run/berth';

const SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC;

/** What is mounted besides what the init script has mounted (/dev, /proc), in order. */
const MOUNTS: readonly { source: string; target: string; flags: number; data?: string }[] = [
  { source: 'sysfs', target: '/sys', flags: SAFE },
  { source: 'cgroup2', target: CGROUP_ROOT, flags: SAFE },
  { source: 'tmpfs', target: '/run', flags: MS_NOSUID | MS_NODEV, data: 'mode=755' },
  { source: 'tmpfs', target: '/tmp', flags: MS_NOSUID | MS_NODEV },
  { source: 'devpts', target: '/dev/pts', flags: MS_NOSUID | MS_NOEXEC, data: 'mode=620,gid=5,ptmxmode=666' },
  { source: 'tmpfs', target: '/dev/shm', flags: SAFE, data: 'mode=1777,size=65536k' },
  { source: 'mqueue', target: '/dev/mqueue', flags: SAFE },
];

/**
 * Ends the machine at once. One whose kernel is told to reset through the keyboard controller (`reboot=k`) is
 * Firecracker's, which has no power to be switched off and ends with the reset.
 *
 * @throws SyscallError
 */
export async function endMachine(): Promise<void> {
  const words = (await readFile('/proc/cmdline', 'utf8')).trim().split(' ');
  if (words.includes('reboot=k')) reset();
  else powerOff();
}

/** Makes the machine one in which an OCI runtime can work. */
export async function prepareSystem(): Promise<void> {
  for (const { source, target, flags, data } of MOUNTS) {
    if (target.startsWith('/dev/')) await mkdir(target, { recursive: true });
    mount(source, target, source, flags, data);
  }
  // The OCI runtime moves mounts about, which the kernel allows only where nothing is shared; the volumes of
  // containers whose mounts are to be seen by others are shared by their own.
  mount(null, '/', null, MS_SHARED | MS_REC);
  await mkdir(STATE_DIR, { recursive: true, mode: 0o700 });
  await prepareCgroups();
  await writeFile('/run/hosts', '127.0.0.1 localhost\n::1 localhost\n');
}

/** Gives all controllers to the containers' group and to the containers. */
async function prepareCgroups(): Promise<void> {
  const controllers = (await readFile(`${CGROUP_ROOT}/cgroup.controllers`, 'utf8')).trim().split(' ');
  const all = controllers.map((name) => `+${name}`).join(' ');
  await writeFile(`${CGROUP_ROOT}/cgroup.subtree_control`, all);
  await mkdir(`${CGROUP_ROOT}${CONTAINERS_CGROUP}`);
  await writeFile(`${CGROUP_ROOT}${CONTAINERS_CGROUP}/cgroup.subtree_control`, all);
}
