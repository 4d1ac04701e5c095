import { chown, mkdir, readFile, writeFile } from 'node:fs/promises';
import type { SandboxPaths } from '../paths.ts';
import { MS_NODEV, MS_NOEXEC, MS_NOSUID, mount } from '../sys/mount.ts';
import { lsetxattr } from '../sys/xattr.ts';
import type { DnsConfig, SandboxConfig } from './config.ts';
import { hostRoot } from './user-namespace.ts';

/** Kubernetes' size of /dev/shm, bytes. */
const SHM_BYTES = 64 * 1024 * 1024;

/** Makes the sandbox's directory with all that does not depend on the network. */
export async function writeSandboxFiles(
  paths: SandboxPaths,
  config: SandboxConfig,
  hostname: string,
): Promise<void> {
  await mkdir(paths.rootfs, { recursive: true, mode: 0o711 });
  const root = hostRoot(config.security.namespaces.user);
  // The OCI runtime makes the mount points in it as the pod's root.
  if (root !== undefined) await chown(paths.rootfs, root.uid, root.gid);
  await Promise.all([
    writeFile(paths.hostname, `${hostname}\n`),
    writeResolvConf(paths.resolvConf, config.dns),
  ]);
  if (config.security.namespaces.ipc === 'pod') {
    await mkdir(paths.shm, { mode: 0o1777 });
    const owner = root === undefined ? '' : `,uid=${root.uid},gid=${root.gid}`;
    mount('shm', paths.shm, 'tmpfs', MS_NOSUID | MS_NODEV | MS_NOEXEC, `mode=1777,size=${SHM_BYTES}${owner}`);
  }
}

/**
 * Gives the files that every container sees to the root of the pod's user namespace, if it has one, so that it
 * may write them as the root of any other pod may.
 */
export async function ownSandboxFiles(paths: SandboxPaths, config: SandboxConfig): Promise<void> {
  const root = hostRoot(config.security.namespaces.user);
  if (root === undefined) return;
  for (const file of [paths.hostname, paths.resolvConf, paths.hosts]) await chown(file, root.uid, root.gid);
}

/** Gives the files that every container sees, and the pod's /dev/shm, the SELinux label of the pod's files. */
export function labelSandboxFiles(
  paths: SandboxPaths,
  { security }: SandboxConfig,
  label: string | undefined,
): void {
  if (label === undefined) return;
  const shm = security.namespaces.ipc === 'pod' ? [paths.shm] : [];
  for (const file of [paths.hostname, paths.resolvConf, paths.hosts, ...shm])
    lsetxattr(file, 'security.selinux', Buffer.from(`${label}\0`));
}

async function writeResolvConf(path: string, dns: DnsConfig | undefined): Promise<void> {
  const asked = dns !== undefined && dns.servers.length + dns.searches.length + dns.options.length > 0;
  await writeFile(path, asked ? resolvConf(dns) : await hostFile('/etc/resolv.conf'));
}

/** The text of resolv.conf(5) for a DNS configuration. */
export function resolvConf({ servers, searches, options }: DnsConfig): string {
  return [
    ...(searches.length > 0 ? [`search ${searches.join(' ')}\n`] : []),
    ...servers.map((server) => `nameserver ${server}\n`),
    ...(options.length > 0 ? [`options ${options.join(' ')}\n`] : []),
  ].join('');
}

/**
 * /etc/hosts for containers whose caller brings none (the kubelet mounts its own over it): the node's
 * with the host's network, else localhost and the pod's own name.
 */
export async function writeHosts(path: string, config: SandboxConfig, ips: readonly string[]): Promise<void> {
  if (config.security.namespaces.network === 'node') {
    await writeFile(path, await hostFile('/etc/hosts'));
    return;
  }
  const own = ips.map((ip) => `${ip}\t${config.hostname}\n`);
  await writeFile(
    path,
    `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n${config.hostname === '' ? '' : own.join('')}`,
  );
}

async function hostFile(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    // A node without the file gives its pods an empty one.
    return '';
  }
}
