import { posix } from 'node:path';
import type { Mount } from '../container/config.ts';
import { BerthError, invalid } from '../errors.ts';
import type { MissingFeatures } from '../isolation/features.ts';
import { specMapping } from './namespaces.ts';
import type { SpecMount } from './types.ts';

/** Files of the sandbox that each of its containers sees, unless the request mounts something there. */
export interface SandboxFiles {
  /** Becomes /etc/hosts. */
  hosts?: string;
  /** Becomes /etc/hostname. */
  hostname?: string;
  /** Becomes /etc/resolv.conf. */
  resolvConf?: string;
  /** Becomes /dev/shm: the pod's tmpfs, or the node's with the node's IPC namespace. */
  shm?: string;
}

/** How the kernel's file systems are mounted. */
export interface SystemMounts {
  /** sysfs and cgroup file systems are writable. */
  privileged: boolean;
  /** Other containers of the pod may be privileged. */
  privilegedPod: boolean;
  /** See `HostFacts.cgroup2Options`; empty when the container has a cgroup namespace of its own. */
  cgroupOptions: readonly string[];
}

/** The mounts in the order in which the OCI runtime makes them. */
export interface MountPlan {
  mounts: SpecMount[];
  /** Of the mounts, what is to be made read-only afterwards. */
  readonlyPaths: string[];
  /** Absent: private, the OCI runtimes' own default. */
  rootfsPropagation?: 'rshared' | 'rslave';
}

/**
 * All mounts of a container. The request's come last, shallow before deep so that none hides another,
 * and replace what berth would mount at the same path; a request for /dev replaces all below it too.
 */
export function containerMounts(
  requested: Mount[],
  files: SandboxFiles,
  system: SystemMounts,
  readonlyRootfs: boolean,
  missing: MissingFeatures,
): MountPlan {
  const own = requested.map((m, i) => requestedMount(m, i, missing));
  const taken = new Set(own.map((m) => m.destination));
  const base = [...systemMounts(system), ...fileMounts(files, readonlyRootfs)].filter(
    (m) => !taken.has(m.destination) && !(taken.has('/dev') && m.destination.startsWith('/dev/')),
  );
  own.sort((a, b) => depth(a.destination) - depth(b.destination));
  const propagation = rootfsPropagation(requested);
  return {
    mounts: [...base, ...own],
    readonlyPaths: isSysfsCovered(system) && !taken.has('/sys') ? ['/sys'] : [],
    ...(propagation ? { rootfsPropagation: propagation } : {}),
  };
}

/**
 * All sysfs mounts of a network namespace are one file system, which is read-only for all of them when the first
 * one was mounted so (mount(2): MS_RDONLY of a new superblock). Where a privileged container may come later, the
 * others' /sys is hence mounted writable and covered by a read-only bind mount.
 */
function isSysfsCovered({ privileged, privilegedPod }: SystemMounts): boolean {
  return privilegedPod && !privileged;
}

function systemMounts(system: SystemMounts): SpecMount[] {
  const access = system.privileged ? 'rw' : 'ro';
  const sysfs = isSysfsCovered(system) ? 'rw' : access;
  const safe = ['nosuid', 'noexec', 'nodev'];
  return [
    mount('/proc', 'proc', 'proc', safe),
    mount('/dev', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    // 5 is the group tty of every distribution; without gid= a terminal would belong to the user's group.
    mount('/dev/pts', 'devpts', 'devpts', [
      'nosuid',
      'noexec',
      'newinstance',
      'ptmxmode=0666',
      'mode=0620',
      'gid=5',
    ]),
    mount('/dev/mqueue', 'mqueue', 'mqueue', safe),
    mount('/sys', 'sysfs', 'sysfs', [...safe, sysfs]),
    mount('/sys/fs/cgroup', 'cgroup', 'cgroup', [...safe, 'relatime', access, ...system.cgroupOptions]),
  ];
}

function fileMounts(files: SandboxFiles, readonlyRootfs: boolean): SpecMount[] {
  const access = readonlyRootfs ? 'ro' : 'rw';
  const list: SpecMount[] = [];
  const bind = (destination: string, source: string | undefined, options: string[]): void => {
    if (source !== undefined)
      list.push(mount(destination, 'bind', source, ['rbind', 'rprivate', ...options]));
  };
  bind('/dev/shm', files.shm, ['rw', 'nosuid', 'noexec', 'nodev']);
  bind('/etc/hosts', files.hosts, [access]);
  bind('/etc/hostname', files.hostname, [access]);
  bind('/etc/resolv.conf', files.resolvConf, [access]);
  return list;
}

function mount(destination: string, type: string, source: string, options: string[]): SpecMount {
  return { destination, type, source, options };
}

const PROPAGATION = { private: 'rprivate', hostToContainer: 'rslave', bidirectional: 'rshared' };

function requestedMount(m: Mount, i: number, missing: MissingFeatures): SpecMount {
  const field = `config.mounts[${i}]`;
  const destination = cleanPath(m.containerPath, `${field}.container_path`);
  if (destination === '/') throw invalid(`${field}.container_path`, 'must not be the root of the container');
  const source = cleanPath(m.hostPath, `${field}.host_path`);
  let access = m.readonly || m.image !== undefined ? 'ro' : 'rw';
  if (m.recursiveReadOnly) {
    const ro = `${field}.recursive_read_only`;
    if (!m.readonly) throw invalid(ro, 'needs readonly beside it');
    if (m.propagation !== 'private') throw invalid(ro, 'needs private propagation');
    // The first word is how the kubelet tells this case (cri-api/pkg/errors, ErrRROUnsupported).
    // Falling back to a mount whose submounts are writable would break what the user was promised.
    const why = missing.recursiveReadOnlyMounts;
    if (why !== undefined) throw new BerthError('unimplemented', `RROUnsupported: ${ro}: ${why}`);
    access = 'rro';
  }
  return {
    ...mount(destination, 'bind', source, ['rbind', PROPAGATION[m.propagation], access]),
    ...(m.uidMappings.length > 0 ? { uidMappings: m.uidMappings.map(specMapping) } : {}),
    ...(m.gidMappings.length > 0 ? { gidMappings: m.gidMappings.map(specMapping) } : {}),
  };
}

/**
 * Mounts travel through the container's root, so the root must take part: shared to pass mounts out,
 * slave to let them in.
 */
function rootfsPropagation(mounts: Mount[]): 'rshared' | 'rslave' | undefined {
  if (mounts.some((m) => m.propagation === 'bidirectional')) return 'rshared';
  return mounts.some((m) => m.propagation === 'hostToContainer') ? 'rslave' : undefined;
}

/** An absolute path without `.`, `..` and doubled or trailing slashes. */
export function cleanPath(path: string, field: string): string {
  if (!path.startsWith('/')) throw invalid(field, 'must be an absolute path');
  if (path.includes('\0')) throw invalid(field, 'must not contain NUL bytes');
  return posix.resolve('/', path);
}

function depth(path: string): number {
  return path.split('/').length;
}
