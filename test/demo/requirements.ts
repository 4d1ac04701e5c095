import { accessSync, constants, existsSync, readFileSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseHierarchies } from '../../cgroups/mountinfo.ts';
import { configSchema } from '../../src/config/schema.ts';

const CNI_DIR = '/usr/lib/cni';
const CGROUPS = '/sys/fs/cgroup';
const CONTROLLERS = ['cpu', 'memory', 'pids'];
/** capability.h: what making mounts and namespaces, and network links, takes. */
const CAPABILITIES = { CAP_SYS_ADMIN: 21n, CAP_NET_ADMIN: 12n };
/** OVERLAYFS_SUPER_MAGIC of linux/magic.h. */
const OVERLAYFS = 0x794c7630;
/** sun_path of unix(7) less its end, and what the demo puts behind the temporary directory. */
const LONGEST_TMPDIR = 107 - '/berthd-01234567-abcdef/berth.sock'.length;

/** What the demo needs and this machine lacks, one line each, with what to do about it. */
export function missing(): string[] {
  // Later lines make little sense to those who are not root.
  const privileges = missingPrivileges();
  if (privileges.length > 0) return privileges;
  return [...missingPrograms(), ...missingCgroups(), ...missingFileSystems()];
}

function missingPrivileges(): string[] {
  if (process.platform !== 'linux') return ['Linux: berth runs containers of the Linux kernel only'];
  if (process.getuid?.() !== 0) return ['root: containers need it; run "sudo npm run demo"'];
  const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const held = BigInt(`0x${line}`);
  const lacking = Object.entries(CAPABILITIES).filter(([, bit]) => ((held >> bit) & 1n) === 0n);
  if (lacking.length === 0) return [];
  const names = lacking.map(([name]) => name).join(', ');
  return [`${names}: this root lacks it; run the demo outside a container, or in a privileged one`];
}

function missingPrograms(): string[] {
  const { runtimes, conmon, pause, seccomp_profile: seccomp } = configSchema.parse({});
  const apt = (name: string) => `run "apt-get install ${name}"`;
  const checkout = path.resolve(import.meta.dirname, '../..');
  const wanted: [string, string, string][] = [
    ...Object.values(runtimes).map((runtime): [string, string, string] => [
      'the OCI runtime runc',
      runtime.path,
      apt('runc'),
    ]),
    ['the container monitor conmon', conmon, apt('conmon')],
    ['the pause program catatonit', pause, apt('catatonit')],
    ...['bridge', 'host-local', 'loopback'].map((name): [string, string, string] => [
      `the CNI plugin ${name}`,
      path.join(CNI_DIR, name),
      apt('containernetworking-plugins'),
    ]),
    ['busybox, of which the image is made,', '/bin/busybox', apt('busybox')],
    ['ip, which removes the bridge,', '/sbin/ip', apt('iproute2')],
    ['berthd, built,', path.join(checkout, 'dist/berthd.cjs'), `run "npm run build" in ${checkout}`],
    ['berth, built,', path.join(checkout, 'dist/berth.js'), `run "npm run build" in ${checkout}`],
  ];
  const lines = wanted
    .filter(([, file]) => !allows(file, /\.c?js$/.test(file) ? constants.R_OK : constants.X_OK))
    .map(([what, file, todo]) => `${what} is not at ${file}: ${todo}`);
  if (!allows(seccomp, constants.R_OK)) {
    lines.push(`the seccomp profile is not at ${seccomp}: ${apt('golang-github-containers-common')}`);
  }
  return lines;
}

function missingCgroups(): string[] {
  const found = new Map<string, string>();
  for (const { controllers, mountpoint, version } of parseHierarchies(
    readFileSync('/proc/self/mountinfo', 'utf8'),
    CGROUPS,
  )) {
    const names =
      version === 1
        ? controllers
        : readFileSync(`${mountpoint}/cgroup.controllers`, 'utf8').trim().split(' ');
    for (const name of names) found.set(name, mountpoint);
  }
  return CONTROLLERS.flatMap((name) => {
    const mountpoint = found.get(name);
    if (mountpoint === undefined) {
      const todo = `mount cgroups there; a kernel that has ${name} off is booted with cgroup_enable=${name}`;
      return [`the cgroup controller ${name} is not below ${CGROUPS}: ${todo}`];
    }
    if (allows(mountpoint, constants.W_OK)) return [];
    return [`${mountpoint} is mounted read-only: run the demo outside a container, or in a privileged one`];
  });
}

function missingFileSystems(): string[] {
  const dir = tmpdir();
  const other = `set TMPDIR to a directory on another, such as "TMPDIR=/dev/shm npm run demo"`;
  if (!existsSync(dir)) return [`the temporary directory ${dir} does not exist: set TMPDIR to one that does`];
  const lines: string[] = [];
  if (statfsSync(dir).type === OVERLAYFS)
    lines.push(`${dir} is on overlayfs, which cannot hold containers' layers: ${other}`);
  if (dir.length > LONGEST_TMPDIR)
    lines.push(`the path ${dir} is too long to hold a socket: set TMPDIR to a shorter one`);
  return lines;
}

function allows(file: string, mode: number): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}
