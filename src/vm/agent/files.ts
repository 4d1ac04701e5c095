import { chmod, lchown, mkdir, open, readdir, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isErrno } from '../../errors.ts';
import type { Params, Result } from '../protocol/messages.ts';

/** The name of a link that is about to take another's place. */
const COMING = '.berth-coming';

/**
 * Makes files of the guest's that are copies of the host's. A link takes its place at once, which is how the kubelet lets
 * all files of a volume change together; what is not to be kept is removed last.
 */
export async function putFiles({ target, entries, keep }: Params<'putFiles'>): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  for (const { path, kind, data = '', append = false, mode, uid, gid } of entries) {
    const at = path === '' ? target : join(target, path);
    if (kind === 'link') {
      const coming = join(dirname(at), COMING);
      await rm(coming, { force: true });
      await symlink(data, coming);
      await rename(coming, at);
    } else if (kind === 'directory') await mkdir(at, { recursive: true });
    else {
      // In place: a bind mount of a single file has this very one.
      const file = await open(at, append ? 'a' : 'w');
      await file.writeFile(Buffer.from(data, 'base64')).finally(() => file.close());
    }
    await lchown(at, uid, gid);
    if (kind !== 'link') await chmod(at, mode);
  }
  if (keep !== undefined) await removeOthers(target, new Set(keep));
}

async function removeOthers(dir: string, keep: ReadonlySet<string>, below = ''): Promise<void> {
  for (const entry of await readdir(join(dir, below), { withFileTypes: true })) {
    const path = join(below, entry.name);
    if (!keep.has(path)) await rm(join(dir, path), { recursive: true, force: true });
    else if (entry.isDirectory()) await removeOthers(dir, keep, path);
  }
}

/** The beginning of a file; empty when there is none. */
export async function getFile({ path, maxBytes }: Params<'getFile'>): Promise<Result<'getFile'>> {
  try {
    const file = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(maxBytes), 0, maxBytes, 0);
      return { data: buffer.toString('base64', 0, bytesRead) };
    } finally {
      await file.close();
    }
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT')) return { data: '' };
    throw e;
  }
}
