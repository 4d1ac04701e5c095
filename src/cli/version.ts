import { readFile } from 'node:fs/promises';
import path from 'node:path';

/** berth's version, from the package.json that the checkout and the built tree have above this file. */
export async function readVersion(): Promise<string> {
  for (let directory = import.meta.dirname; directory !== '/'; directory = path.dirname(directory)) {
    const text = await readFile(path.join(directory, 'package.json'), 'utf8').catch(() => undefined);
    if (text === undefined) continue;
    const manifest: unknown = JSON.parse(text);
    if (typeof manifest === 'object' && manifest !== null && 'version' in manifest)
      return String(manifest.version);
  }
  return 'unknown';
}
