import { CgroupError } from './io.ts';
import { expandSlice } from './systemd/slice.ts';
import type { CgroupDriver } from './types.ts';

export interface CgroupNameInput {
  readonly driver: CgroupDriver;
  /** CRI's `linux.cgroup_parent`: a path for cgroupfs, a slice for systemd; empty for the default. */
  readonly parent: string;
  /** Container or sandbox id (64 hex digits, which cAdvisor and the kubelet look for in the name). */
  readonly id: string;
  /** Scope prefix under systemd and name of the default parent under cgroupfs. */
  readonly prefix: string;
  /** Before the id in the cgroup's own name. Default: the prefix under systemd, nothing under cgroupfs. */
  readonly leaf?: string | undefined;
}

export interface CgroupName {
  /** For the OCI spec's `linux.cgroupsPath`. */
  readonly cgroupsPath: string;
  /** Where the container's cgroup is, within each hierarchy. */
  readonly path: string;
  /** Where its parent (the pod's cgroup) is. */
  readonly parent: string;
}

/**
 * An absolute, normalised cgroup path. Empty components and `.` vanish; `..`, control characters and
 * over-long components are refused.
 * @throws CgroupError EINVAL
 */
export function normalisePath(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  const refuse = (why: string) =>
    new CgroupError('EINVAL', path, `cgroup path ${JSON.stringify(path)} ${why}`);
  if (path.length > 4096) throw new CgroupError('EINVAL', '', 'cgroup path is longer than 4096 characters');
  for (const part of parts) {
    if (part === '..') throw refuse('must not contain ".."');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    if (/[\x00-\x1f\x7f]/.test(part)) throw refuse('must not contain control characters');
    if (Buffer.byteLength(part) > 255) throw refuse('has a component of more than 255 bytes');
  }
  return `/${parts.join('/')}`;
}

/**
 * Like {@link normalisePath}, and refuses the root: no operation that changes a cgroup may reach it.
 * @throws CgroupError EINVAL
 */
export function normaliseBelowRoot(path: string): string {
  const normal = normalisePath(path);
  if (normal === '/') throw new CgroupError('EINVAL', path, 'refusing to change the root cgroup');
  return normal;
}

function systemdName({ parent, id, prefix, leaf = prefix }: CgroupNameInput): CgroupName {
  const parts = normalisePath(parent);
  const slice = parts === '/' ? 'system.slice' : parts.slice(parts.lastIndexOf('/') + 1);
  if (!slice.endsWith('.slice')) {
    throw new CgroupError(
      'EINVAL',
      parent,
      `cgroup_parent ${JSON.stringify(parent)} is not a systemd slice; with the systemd cgroup driver it must be ` +
        'named like "kubepods-burstable.slice" (or set the kubelet and the runtime to cgroupfs)',
    );
  }
  const expanded = expandSlice(slice);
  // The kubelet sends the slice's name alone; a full path is welcome when it says the same.
  if (parts !== '/' && parts !== `/${slice}` && parts !== expanded) {
    throw new CgroupError(
      'EINVAL',
      parent,
      `cgroup_parent ${JSON.stringify(parent)} does not match its slice, which systemd keeps at ${expanded}`,
    );
  }
  return {
    cgroupsPath: `${slice}:${leaf}:${id}`,
    parent: expanded,
    path: `${expanded === '/' ? '' : expanded}/${leaf}-${id}.scope`,
  };
}

function cgroupfsName({ parent, id, prefix, leaf }: CgroupNameInput): CgroupName {
  const given = normalisePath(parent);
  const path = given === '/' ? `/${prefix}` : given;
  if (path.endsWith('.slice')) {
    throw new CgroupError(
      'EINVAL',
      parent,
      `cgroup_parent ${JSON.stringify(parent)} is a systemd slice, but the cgroup driver is cgroupfs; ` +
        'set the same cgroup driver for the kubelet and the runtime',
    );
  }
  const own = `${path}/${leaf === undefined ? id : `${leaf}-${id}`}`;
  return { cgroupsPath: own, parent: path, path: own };
}

/**
 * Names a container's cgroup: the string for the OCI spec and the path that results from it.
 * cgroupfs: `<parent>/<id>`, parent `/<prefix>` when none is given.
 * systemd: scope `<prefix>-<id>.scope` in the slice, `system.slice` when none is given (runc's
 * convention `slice:prefix:name`; OCI runtime spec, config-linux, "Cgroups Path").
 * @throws CgroupError EINVAL for a parent that does not fit the driver or contains `..`
 */
export function cgroupName(input: CgroupNameInput): CgroupName {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(input.id))
    throw new CgroupError('EINVAL', input.id, `${JSON.stringify(input.id)} cannot name a cgroup`);
  return input.driver === 'systemd' ? systemdName(input) : cgroupfsName(input);
}
