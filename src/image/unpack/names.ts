import { BerthError } from '../../errors.ts';
import { printable } from '../tar/reader.ts';

/**
 * The parts of an archive's path relative to the layer's root. Absolute names count from that root;
 * `.` and empty parts vanish, `..` goes back one part.
 *
 * @throws BerthError `invalid` when the path climbs out of the layer, or a part is longer than any file
 * system allows (NAME_MAX, 255 bytes)
 */
export function layerPath(name: string, what: string): string[] {
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') {
      if (part.length > 255) throw refused(what, name, 'has a part of more than 255 bytes');
      parts.push(part);
    } else if (parts.pop() === undefined) {
      throw refused(what, name, 'climbs out of the layer');
    }
  }
  return parts;
}

/**
 * Refuses a relative symlink that climbs above the root of the container. The kernel would stop at the
 * root, so it is harmless inside; but whoever reads the layer from the host would follow it out.
 * Absolute targets are fine: in the container they start at its root.
 *
 * @throws BerthError `invalid`
 */
export function checkSymlink(directoryDepth: number, target: string, name: string): void {
  if (target === '') throw refused('symlink', name, 'has no target');
  if (target.startsWith('/')) return;
  let depth = directoryDepth;
  for (const part of target.split('/')) {
    if (part === '' || part === '.') continue;
    depth += part === '..' ? -1 : 1;
    if (depth < 0) throw refused('symlink', name, `points outside of the layer, to "${printable(target)}"`);
  }
}

/** An entry that is not unpacked, and why. */
export function refused(what: string, name: string, why: string): BerthError {
  return new BerthError('invalid', `layer: ${what} "${printable(name)}" ${why}`);
}
