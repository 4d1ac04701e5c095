import { BerthError } from '../../errors.ts';
import { printable } from '../tar/reader.ts';

/**
 * What the last part of an entry's name says (OCI image-spec, layer.md, "Whiteouts"):
 * - `opaque`: the directory hides everything that lower layers have in it
 * - `whiteout`: `name` of lower layers is hidden
 * - `ignored`: AUFS's own bookkeeping, which some old layers carry
 */
export type Whiteout = { kind: 'opaque' } | { kind: 'whiteout'; name: string } | { kind: 'ignored' };

const PREFIX = '.wh.';
const META_PREFIX = '.wh..wh.';
const OPAQUE = '.wh..wh..opq';

/**
 * Undefined for an ordinary name.
 *
 * @throws BerthError `invalid` for a whiteout of nothing, `.` or `..`, which would reach out of the directory
 */
export function parseWhiteout(base: string): Whiteout | undefined {
  if (!base.startsWith(PREFIX)) return undefined;
  if (base === OPAQUE) return { kind: 'opaque' };
  if (base.startsWith(META_PREFIX)) return { kind: 'ignored' };
  const name = base.slice(PREFIX.length);
  if (name === '' || name === '.' || name === '..') {
    throw new BerthError('invalid', `layer: "${printable(base)}" is a whiteout without a file name`);
  }
  return { kind: 'whiteout', name };
}
