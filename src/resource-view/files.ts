import { posix } from 'node:path';
import type { ContainerConfig } from '../container/config.ts';
import { invalid } from '../errors.ts';
import type { SandboxConfig } from '../sandbox/config.ts';
import type { SpecMount } from '../spec/types.ts';

/** By which a pod asks for a view of its own, or for none, whatever its handler's configuration says. */
export const ANNOTATION = 'io.berth.resource-view';

/** What programs read to find out how large the machine is, and lxcfs(1) answers by the reader's limits. */
export const VIEW_FILES: readonly string[] = [
  '/proc/cpuinfo',
  '/proc/diskstats',
  '/proc/loadavg',
  '/proc/meminfo',
  '/proc/stat',
  '/proc/swaps',
  '/proc/uptime',
  '/sys/devices/system/cpu/online',
];

/** @throws BerthError `invalid`: the annotation is neither "true" nor "false" */
export function wantsView({ annotations }: SandboxConfig, byHandler: boolean): boolean {
  const value = annotations[ANNOTATION];
  if (value === undefined) return byHandler;
  if (value === 'true' || value === 'false') return value === 'true';
  throw invalid(`config.annotations["${ANNOTATION}"]`, 'must be "true" or "false"');
}

/**
 * The mounts that put lxcfs' files (those of {@link VIEW_FILES} in `present`) over the kernel's. Left alone is
 * what the container mounts itself: a file that is put over a shared mount of the node's would be over the
 * node's own.
 */
export function viewMounts(
  dir: string,
  present: readonly string[],
  { mounts }: ContainerConfig,
): SpecMount[] {
  const own = mounts.map(({ containerPath }) => posix.resolve('/', containerPath));
  return present
    .filter((file) => !own.some((path) => file === path || file.startsWith(`${path}/`)))
    .map((file) => ({
      destination: file,
      type: 'bind',
      source: posix.join(dir, file),
      options: ['bind', 'rprivate', 'ro', 'nosuid', 'nodev', 'noexec'],
    }));
}
