import { constants } from 'node:fs';
import { access, chmod, copyFile, cp, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BerthError } from '../../errors.ts';
import { findModules, loadOrder } from './modules.ts';

/** Debian's packages in the guest's root file system, kernel apart: what runc and Node.js need, and busybox for the rest. */
export const ROOTFS_PACKAGES = [
  'libc6',
  'libgcc-s1',
  'libstdc++6',
  'libseccomp2',
  'runc',
  'catatonit',
  'busybox-static',
];

/** Where berth's own files come from on this machine. */
export interface AgentFiles {
  /** Node.js. */
  node: string;
  /** The agent in one file. */
  bundle: string;
  /** `node_modules` of this installation, for koffi. */
  modules: string;
}

/** Directories of the guest; where something is mounted at run time among them. */
const DIRECTORIES = [
  ...[
    'dev',
    'proc',
    'sys',
    'run',
    'tmp',
    'root',
    'var/lib',
    'etc',
    'usr/lib/berth',
    'mnt',
    'bin',
    'sbin',
    'usr/sbin',
    'usr/bin',
  ],
];
/** Not needed to run anything. */
const DOCUMENTATION = [
  'usr/share/doc',
  'usr/share/man',
  'usr/share/lintian',
  'usr/share/bug',
  'usr/share/bash-completion',
];
/** Parts of the kernel's modules that workloads may want by name: networking, file systems, block devices. */
const MODULE_FOLDERS = [
  ...[
    'arch',
    'crypto',
    'lib',
    'mm',
    'net',
    'fs/erofs',
    'fs/fuse',
    'fs/overlayfs',
    'fs/squashfs',
    'fs/xfs',
    'fs/nls',
  ],
  ...['drivers/virtio', 'drivers/block', 'drivers/char', 'drivers/md', 'drivers/nvdimm', 'drivers/misc'],
  ...[
    'drivers/net/wireguard',
    'drivers/net/vxlan',
    'drivers/net/ipvlan',
    'drivers/net/bonding',
    'drivers/net/geneve.ko',
  ],
  ...[
    'drivers/net/tun.ko',
    'drivers/net/veth.ko',
    'drivers/net/dummy.ko',
    'drivers/net/macvlan.ko',
    'drivers/net/macvtap.ko',
  ],
  ...[
    'drivers/net/virtio_net.ko',
    'drivers/net/net_failover.ko',
    'drivers/net/ifb.ko',
    'drivers/net/vrf.ko',
    'drivers/net/tap.ko',
  ],
];
const NAMED = [...['sh', 'modprobe', 'mount', 'umount', 'ip', 'sysctl']];

/** Of koffi only its machine code: the rest finds out which that is (src/sys/koffi-guest.ts). */
const KOFFI_FILE = `@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`;

/** What this file makes of the same packages: a part of an image's identity. */
export const ROOTFS_RECIPE = [DIRECTORIES, DOCUMENTATION, MODULE_FOLDERS, NAMED, KOFFI_FILE];

/** Finishes a tree into which {@link ROOTFS_PACKAGES} are unpacked: the agent, a few links and files. */
export async function completeRootfs(root: string, agent: AgentFiles): Promise<void> {
  for (const dir of DIRECTORIES) await mkdir(path.join(root, dir), { recursive: true });
  for (const dir of DOCUMENTATION) await rm(path.join(root, dir), { recursive: true, force: true });
  for (const name of NAMED) await symlink('/bin/busybox', path.join(root, 'sbin', name));
  await symlink('/bin/busybox', path.join(root, 'bin/sh'));
  for (const name of ['resolv.conf', 'hosts', 'hostname'])
    await symlink(`/run/${name}`, path.join(root, 'etc', name));
  await writeFile(path.join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await writeFile(path.join(root, 'etc/group'), 'root:x:0:\n');
  const own = path.join(root, 'usr/lib/berth');
  try {
    await copyFile(agent.bundle, path.join(own, 'agent.cjs'));
    await copyFile(agent.node, path.join(own, 'node'));
    await copyFile(path.join(agent.modules, KOFFI_FILE), path.join(own, 'koffi.node'));
  } catch (e: unknown) {
    throw new BerthError('precondition', `berth's own files are not complete: ${String(e)}`, { cause: e });
  }
  await chmod(path.join(own, 'node'), 0o755);
}

/**
 * Puts the modules that workloads may want into the guest, where the kernel loads them on demand by `modprobe`.
 *
 * @param modules a kernel package's `lib/modules/<version>`
 * @param late what the agent loads: the paths go into a file, in order
 */
export async function copyModules(modules: string, root: string, late: readonly string[]): Promise<void> {
  const target = path.join(root, 'lib/modules', path.basename(modules));
  await mkdir(target, { recursive: true });
  for (const name of MODULE_FOLDERS) {
    const from = path.join(modules, 'kernel', name);
    if (await exists(from)) await cp(from, path.join(target, 'kernel', name), { recursive: true });
  }
  for (const name of await readdir(modules)) {
    if (name.startsWith('modules.')) await copyFile(path.join(modules, name), path.join(target, name));
  }
  const files = await findModules(target);
  const paths = (await loadOrder(files, late)).map(
    (name) => `/${path.relative(root, files.get(name) ?? '')}\n`,
  );
  await writeFile(path.join(root, 'usr/lib/berth/modules'), paths.join(''));
}

async function exists(file: string): Promise<boolean> {
  return access(file, constants.F_OK).then(
    () => true,
    () => false,
  );
}
