import { randomBytes } from 'node:crypto';
import { open, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Replaces `path` by a file with these contents so that after a crash it is the old or the new one, whole
 * and on disk: a new file in the same directory, fsync, rename, fsync of the directory (the rename is an
 * entry of the directory, which the file's own fsync does not cover).
 *
 * @throws Node's system error, with the temporary file removed
 */
export async function writeFileAtomic(
  path: string,
  contents: string | Uint8Array,
  options: { mode?: number } = {},
): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', options.mode ?? 0o644);
    try {
      await file.writeFile(contents);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (e: unknown) {
    await unlink(temporary).catch(() => {});
    throw e;
  }
  await syncDirectory(dirname(path));
}

/** Makes what was created, renamed or removed in a directory survive a power cut. */
async function syncDirectory(path: string): Promise<void> {
  const dir = await open(path, 'r');
  try {
    await dir.sync();
  } finally {
    await dir.close();
  }
}
