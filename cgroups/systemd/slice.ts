import { statSync } from 'node:fs';
import { CgroupError } from '../io.ts';

/**
 * Path of a slice unit: dashes nest, so `a-b.slice` is at `/a.slice/a-b.slice` (systemd.slice(5)).
 * `-.slice` is the root.
 * @throws CgroupError EINVAL for a name that systemd would refuse
 */
export function expandSlice(slice: string): string {
  if (slice === '-.slice') return '/';
  const stem = slice.endsWith('.slice') ? slice.slice(0, -'.slice'.length) : '';
  const parts = stem.split('-');
  // Unit names are limited to these characters and to 255 bytes (systemd.unit(5)).
  if (slice.length > 255 || parts.includes('') || !/^[A-Za-z0-9:_.\\-]+$/.test(stem)) {
    throw new CgroupError(
      'EINVAL',
      slice,
      `${JSON.stringify(slice)} is not a valid slice name, such as "a-b.slice"`,
    );
  }
  return parts.map((_, i) => `/${parts.slice(0, i + 1).join('-')}.slice`).join('');
}

/** Whether systemd runs this host, by the test of sd_booted(3). */
export function isSystemdBooted(runDir = '/run/systemd/system'): boolean {
  return statSync(runDir, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
