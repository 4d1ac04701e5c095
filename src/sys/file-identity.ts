import { stat } from 'node:fs/promises';

/**
 * What tells a file from any other that lies at its place later, for a key under which something that was found out
 * about it is kept: a program that is put in another's place has another inode. Of a directory only what says which one
 * it is; null when there is none, or no path.
 */
export async function fileIdentity(path: string): Promise<readonly string[] | null> {
  if (path === '') return null;
  return stat(path, { bigint: true }).then(
    (s) => [s.dev, s.ino, ...(s.isDirectory() ? [] : [s.size, s.mtimeNs])].map(String),
    () => null,
  );
}
