import type { Stats } from 'node:fs';
import { lstat, readdir, stat } from 'node:fs/promises';
import { posix } from 'node:path';
import type { Device } from '../container/config.ts';
import { invalid, isErrno, messageOf } from '../errors.ts';
import { cleanPath } from './mounts.ts';
import type { DeviceRule, SpecDevice } from './types.ts';

/** The nodes that a container gets and what its device cgroup lets it do. */
export interface DevicePlan {
  devices: SpecDevice[];
  rules: DeviceRule[];
}

const DENY_ALL: DeviceRule = { allow: false, access: 'rwm' };
const ALLOW_ALL: DeviceRule = { allow: true, access: 'rwm' };

/** A requested device as found on the host. */
export interface FoundDevice {
  device: SpecDevice;
  /** Subset of "rwm". */
  permissions: string;
}

/**
 * Everything is denied but what was asked for (OCI runtimes add null, zero, full, random, urandom, tty
 * and the terminals themselves). A privileged container has all of the host's nodes and may use any.
 */
export function planDevices(
  requested: FoundDevice[],
  privileged: boolean,
  hostDevices: SpecDevice[],
): DevicePlan {
  const asked = requested.map((r) => r.device);
  if (privileged) {
    const paths = new Set(asked.map((d) => d.path));
    return { devices: [...hostDevices.filter((d) => !paths.has(d.path)), ...asked], rules: [ALLOW_ALL] };
  }
  const rules = requested.map(({ device: { type, major, minor }, permissions }): DeviceRule => {
    return { allow: true, ...(type === 'p' ? {} : { type, major, minor }), access: permissions };
  });
  return { devices: asked, rules: [DENY_ALL, ...rules.filter((r) => r.type !== undefined)] };
}

/**
 * Looks at the host's device files that a request names (I/O). A directory stands for all device files
 * below it, as with Docker. Links are followed.
 */
export async function findDevices(requested: Device[]): Promise<FoundDevice[]> {
  const found: FoundDevice[] = [];
  for (const [i, d] of requested.entries()) {
    const field = `config.devices[${i}]`;
    const hostPath = cleanPath(d.hostPath, `${field}.host_path`);
    const containerPath = cleanPath(d.containerPath || d.hostPath, `${field}.container_path`);
    const permissions = d.permissions || 'rwm';
    if (!/^[rwm]{1,3}$/.test(permissions)) throw invalid(`${field}.permissions`, 'must be letters of "rwm"');
    const st = await stat(hostPath).catch((e: unknown) => {
      throw invalid(`${field}.host_path`, messageOf(e));
    });
    if (st.isDirectory()) {
      const below = await devicesBelow(hostPath);
      found.push(
        ...below.map((device) => ({
          device: { ...device, path: posix.join(containerPath, device.path.slice(hostPath.length)) },
          permissions,
        })),
      );
      continue;
    }
    const device = deviceOf(containerPath, st);
    if (device === undefined) throw invalid(`${field}.host_path`, `${hostPath} is no device`);
    found.push({ device, permissions });
  }
  return found;
}

/** All device files of the host's /dev (I/O), for privileged containers. */
export async function hostDevices(): Promise<SpecDevice[]> {
  return await devicesBelow('/dev');
}

/** Belong to the container itself, or are no devices: OCI runtimes make their own there. */
const SKIPPED = new Set([
  '/dev/pts',
  '/dev/shm',
  '/dev/fd',
  '/dev/mqueue',
  '/dev/console',
  '/dev/ptmx',
  '/dev/.lxc',
  '/dev/.lxd-mounts',
  '/dev/.udev',
]);

async function devicesBelow(dir: string): Promise<SpecDevice[]> {
  const devices: SpecDevice[] = [];
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const path = posix.join(dir, entry.name);
    if (SKIPPED.has(path)) continue;
    if (entry.isDirectory()) {
      devices.push(...(await devicesBelow(path)));
      continue;
    }
    if (!entry.isCharacterDevice() && !entry.isBlockDevice()) continue;
    try {
      const device = deviceOf(path, await lstat(path));
      if (device !== undefined) devices.push(device);
    } catch (e: unknown) {
      // Unplugged between the listing and the look.
      if (!isErrno(e, 'ENOENT', 'ENXIO')) throw e;
    }
  }
  return devices;
}

/** Undefined for what is no device file. */
export function deviceOf(path: string, st: Stats): SpecDevice | undefined {
  const type = st.isCharacterDevice() ? 'c' : st.isBlockDevice() ? 'b' : undefined;
  if (type === undefined) return undefined;
  return { path, type, ...deviceNumbers(st.rdev), fileMode: st.mode & 0o7777, uid: st.uid, gid: st.gid };
}

/** glibc's layout of dev_t: minor in bits 0-7 and 20-43, major in bits 8-19 and 44-63 (sys/sysmacros.h). */
export function deviceNumbers(rdev: number): { major: number; minor: number } {
  const dev = BigInt(rdev);
  return {
    major: Number(((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)),
    minor: Number((dev & 0xffn) | ((dev >> 12n) & 0xffffff00n)),
  };
}
