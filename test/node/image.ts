import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const exec = promisify(execFile);

const GUEST = path.join(import.meta.dirname, 'guest');
const SUITE = 'bookworm';
const KERNEL = 'linux-image-cloud-amd64';

/** What the guest has beside Debian's essential packages. */
const PACKAGES = [
  ...['systemd', 'systemd-sysv', 'dbus', 'udev', 'kmod', 'procps', 'iproute2', 'iptables'],
  ...['runc', 'conmon', 'containernetworking-plugins', 'catatonit', 'busybox'],
  // libstdc++6 is for Node.js; apt, which this guest lacks, has brought it to every other Debian.
  ...['golang-github-containers-common', 'libstdc++6'],
  ...['apparmor', 'lxcfs', 'secilc'],
];

/** Modules without which the kernel finds no root disk, in order of dependency. */
const EARLY_MODULES = [
  ...['virtio/virtio_ring', 'virtio/virtio', 'virtio/virtio_pci_legacy_dev', 'virtio/virtio_pci_modern_dev'],
  ...['virtio/virtio_pci', 'block/virtio_blk'],
];

/** Units that only cost the guest time. */
const MASKED = [
  ...['getty@.service', 'serial-getty@.service', 'systemd-logind.service', 'e2scrub_reap.service'],
  ...['fstrim.timer', 'e2scrub_all.timer', 'dpkg-db-backup.timer', 'systemd-firstboot.service'],
  // The distribution's own profiles are for programs that are not there; berthd starts its lxcfs itself.
  ...['apparmor.service', 'lxcfs.service'],
];

/** What QEMU boots. */
export interface NodeImage {
  readonly kernel: string;
  readonly initrd: string;
  /** Raw ext4; to be used with a snapshot on top, since it is shared by all guests. */
  readonly rootDisk: string;
}

/** Where built images are kept between runs: outside the checkout, a folder for each content. */
export function cacheDir(): string {
  return path.join(process.env.XDG_CACHE_HOME ?? '/var/cache', 'berth-test-node');
}

/** An entry of the cache; old ones that nothing has used for a week go. */
export async function cached(
  kind: string,
  key: string,
  build: (dir: string) => Promise<void>,
): Promise<string> {
  const final = path.join(cacheDir(), `${kind}-${key}`);
  if (existsSync(final)) {
    await utimes(final, new Date(), new Date());
    return final;
  }
  await mkdir(cacheDir(), { recursive: true });
  await removeOld();
  const making = await mkdtemp(path.join(cacheDir(), '.making-'));
  try {
    await build(making);
    // Another run may have been as fast.
    if (!existsSync(final)) await rename(making, final);
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  return final;
}

async function removeOld(): Promise<void> {
  const limit = Date.now() - 7 * 24 * 3_600_000;
  for (const name of await readdir(cacheDir())) {
    const entry = path.join(cacheDir(), name);
    if ((await stat(entry)).mtimeMs < limit) await rm(entry, { recursive: true, force: true });
  }
}

/**
 * A Debian 12 node with systemd, cgroup v2 and what berthd needs, made from the host's own package sources.
 *
 * @throws Error when a package cannot be had; the message has mmdebstrap's last words
 */
export async function nodeImage(): Promise<NodeImage> {
  const dir = await cached('image', await recipeHash(), buildImage);
  return {
    kernel: path.join(dir, 'vmlinuz'),
    initrd: path.join(dir, 'initrd'),
    rootDisk: path.join(dir, 'root.ext4'),
  };
}

/** Of this file and all that goes into the guest. */
async function recipeHash(): Promise<string> {
  const hash = createHash('sha256').update(await readFile(import.meta.filename));
  for (const name of (await readdir(GUEST)).sort())
    hash.update(`\0${name}\0`).update(await readFile(path.join(GUEST, name)));
  return hash.digest('hex').slice(0, 16);
}

async function buildImage(dir: string): Promise<void> {
  const root = path.join(dir, 'root');
  const sources = path.join(dir, 'sources.list');
  await writeFile(sources, await aptSources());
  // The kernel is not installed but unpacked: its package would pull in what builds a general initrd.
  const kernel = `cd "$DOWNLOADS" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && apt-get -q download $(apt-cache depends ${KERNEL} | sed -n 's/^ *Depends: //p')`;
  await exec(
    'mmdebstrap',
    [
      ...['--quiet', '--mode=root', '--variant=essential', `--include=${PACKAGES.join(',')}`],
      ...['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"'],
      ...[`--customize-hook=${kernel}`, SUITE, root, sources],
    ],
    { timeout: 300_000, maxBuffer: 1 << 24, env: { ...process.env, DOWNLOADS: dir } },
  );
  const version = await unpackKernel(dir, root);
  await configureGuest(root);
  await makeInitrd(dir, root, version);
  await exec('mke2fs', ['-q', '-t', 'ext4', '-d', root, path.join(dir, 'root.ext4'), '1536M']);
  await rm(root, { recursive: true });
}

/** The host's lines for the guest's release, so that no mirror is named here. */
async function aptSources(): Promise<string> {
  const format = '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)';
  const { stdout } = await exec('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
  const wanted = [SUITE, `${SUITE}-updates`, `${SUITE}-security`];
  const lines = stdout.split('\n').flatMap((line) => {
    const [origin, uri, release = '', component] = line.split('|');
    // Before the first `apt-get update` nothing tells the origin.
    const debian = origin === 'Debian' || origin === '$(ORIGIN)';
    return debian && wanted.includes(release) && component === 'main' ? [`deb ${uri} ${release} main`] : [];
  });
  if (lines.length === 0) throw new Error(`apt's sources on this machine name no Debian "${SUITE}" archive`);
  return `${[...new Set(lines)].join('\n')}\n`;
}

/** @returns the kernel's version, as its module folder is called */
async function unpackKernel(dir: string, root: string): Promise<string> {
  const deb = (await readdir(dir)).find((name) => name.endsWith('.deb'));
  if (deb === undefined) throw new Error(`no ${KERNEL} was downloaded`);
  const unpacked = path.join(dir, 'kernel');
  await exec('dpkg-deb', ['-x', path.join(dir, deb), unpacked]);
  const [version] = await readdir(path.join(unpacked, 'lib/modules'));
  if (version === undefined) throw new Error(`${deb} has no modules`);
  await rename(path.join(unpacked, `boot/vmlinuz-${version}`), path.join(dir, 'vmlinuz'));
  await mkdir(path.join(root, 'usr/lib/modules'), { recursive: true });
  await exec('cp', ['-a', path.join(unpacked, 'lib/modules', version), path.join(root, 'usr/lib/modules')]);
  await exec('chroot', [root, 'depmod', version]);
  await rm(unpacked, { recursive: true });
  await rm(path.join(dir, deb));
  return version;
}

async function configureGuest(root: string): Promise<void> {
  const units = path.join(root, 'etc/systemd/system');
  await writeFile(path.join(root, 'etc/hostname'), 'berth-node\n');
  await writeFile(path.join(root, 'etc/hosts'), '127.0.0.1 localhost berth-node\n');
  await writeFile(path.join(root, 'etc/resolv.conf'), 'nameserver 127.0.0.1\n');
  // With one of its own the guest is not at its first boot, which would enable all kinds of units.
  await writeFile(path.join(root, 'etc/machine-id'), `${'b'.repeat(32)}\n`);
  await writeFile(
    path.join(root, 'etc/fstab'),
    'LABEL=berth-code /usr/local/lib/berth ext4 nofail,noatime,x-systemd.device-timeout=120s 0 0\n' +
      'LABEL=berth-modules /usr/local/lib/berth/node_modules ext4 nofail,noatime,x-systemd.device-timeout=120s 0 0\n',
  );
  await mkdir(path.join(root, 'usr/local/lib/berth'), { recursive: true });
  for (const unit of MASKED) await exec('ln', ['-sf', '/dev/null', path.join(units, unit)]);
  const agent = path.join(root, 'usr/local/lib/berth-test/agent');
  await mkdir(path.dirname(agent), { recursive: true });
  await copyFile(path.join(GUEST, 'agent'), agent);
  await chmod(agent, 0o755);
  for (const name of await readdir(GUEST)) {
    if (/\.(service|socket)$/.test(name)) await copyFile(path.join(GUEST, name), path.join(units, name));
  }
  await exec('chroot', [root, 'systemctl', 'enable', 'berth-test-agent.service', 'berth-test-cri.socket']);
}

/** A busybox, its libraries and the modules for the root disk. */
async function makeInitrd(dir: string, root: string, version: string): Promise<void> {
  const tree = path.join(dir, 'initrd.d');
  for (const sub of ['bin', 'dev', 'root', 'modules']) await mkdir(path.join(tree, sub), { recursive: true });
  const { stdout } = await exec('chroot', [root, 'ldd', '/bin/busybox']);
  const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, file]) => file ?? '');
  for (const file of ['/bin/busybox', ...libraries]) {
    await mkdir(path.join(tree, path.dirname(file)), { recursive: true });
    await copyFile(path.join(root, file), path.join(tree, file));
  }
  for (const module of EARLY_MODULES) {
    const file = path.join(root, 'usr/lib/modules', version, `kernel/drivers/${module}.ko`);
    await copyFile(file, path.join(tree, 'modules', path.basename(file)));
  }
  const order = EARLY_MODULES.map((module) => `${path.basename(module)}.ko\n`).join('');
  await writeFile(path.join(tree, 'modules/order'), order);
  await copyFile(path.join(GUEST, 'init'), path.join(tree, 'init'));
  await chmod(path.join(tree, 'init'), 0o755);
  await exec('sh', [
    '-c',
    'cd "$1" && find . | busybox cpio -o -H newc >"$2"',
    'sh',
    tree,
    path.join(dir, 'initrd'),
  ]);
  await rm(tree, { recursive: true });
}
