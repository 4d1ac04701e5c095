import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isErrno } from './errors.ts';

/**
 * berth's version, for everything that says one. It is written in package.json alone, which the checkout, an
 * installed copy and the built tree all have above this file.
 */
export const BERTH_VERSION: string = readVersion(import.meta.dirname);

/** The version in the nearest package.json in or above a directory. @throws Error when there is none */
function readVersion(start: string): string {
  for (let dir = start; ; dir = path.dirname(dir)) {
    try {
      const manifest: unknown = JSON.parse(readFileSync(path.join(dir, 'package.json'), 'utf8'));
      if (typeof manifest === 'object' && manifest !== null && 'version' in manifest)
        return String(manifest.version);
    } catch (e: unknown) {
      if (!isErrno(e, 'ENOENT')) throw e;
    }
    if (dir === path.dirname(dir))
      throw new Error(`no package.json above ${start}: the installation is incomplete`);
  }
}
