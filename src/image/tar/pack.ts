import type { Stats } from 'node:fs';
import { lstat, open, readdir, readlink } from 'node:fs/promises';
import { BerthError } from '../../errors.ts';
import { lgetxattr, llistxattr } from '../../sys/xattr.ts';
import { printable, type TarType } from './reader.ts';
import { END_OF_ARCHIVE, type NewEntry, paddingAfter, tarHeader } from './writer.ts';

const CHUNK = 256 * 1024;
/** What of a file's extended attributes belongs to the file, not to the machine or file system it is on. */
const KEPT_XATTR = /^(security\.capability$|user\.(?!overlay\.))/;

/** A file of a tree, and where its content is. */
interface TreeEntry {
  entry: NewEntry;
  path: Buffer;
}

/** A directory's content as it is to be archived. */
export interface Tree {
  entries: readonly TreeEntry[];
  /** Of the archive that `packTree` makes. */
  bytes: number;
}

/**
 * Lists what is below a directory, in an order that is always the same. Other file systems mounted there are
 * left out, save the directories that they are mounted on, and so are sockets, which no archive can hold.
 *
 * @param latest seconds since 1970: later times of files count as this one
 * @throws BerthError `invalid` for what a layer cannot hold; SystemError when something cannot be read
 */
export async function listTree(root: string, latest = Number.MAX_SAFE_INTEGER): Promise<Tree> {
  const top = Buffer.from(root);
  const { dev } = await lstat(top);
  const firstNames = new Map<string, string>();
  const entries: TreeEntry[] = [];
  const pending: { path: Buffer; name: string }[] = [{ path: top, name: '' }];
  for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
    const names = (await readdir(dir.path, { encoding: 'buffer' })).sort(Buffer.compare);
    const below: typeof pending = [];
    for (const base of names) {
      const path = Buffer.concat([dir.path, Buffer.from('/'), base]);
      const name = `${dir.name}${base.toString('latin1')}`;
      const stats = await lstat(path);
      if (stats.isSocket()) continue;
      const entry = await describe(path, name, stats, firstNames, latest);
      entries.push({ entry, path });
      if (stats.isDirectory() && stats.dev === dev) below.push({ path, name: entry.name });
    }
    pending.push(...below.reverse());
  }
  const bytes = entries.reduce((sum, { entry }) => sum + entryBytes(entry), END_OF_ARCHIVE.length);
  return { entries, bytes };
}

/** The archive of a listed tree. @throws BerthError `invalid` when a file has changed since it was listed */
export async function* packTree({ entries }: Tree): AsyncGenerator<Buffer> {
  for (const { entry, path } of entries) {
    yield tarHeader(entry);
    if (!entry.size) continue;
    yield* content(path, entry.size);
    yield paddingAfter(entry.size);
  }
  yield END_OF_ARCHIVE;
}

function entryBytes(entry: NewEntry): number {
  const size = entry.size ?? 0;
  return tarHeader(entry).length + size + paddingAfter(size).length;
}

async function describe(
  path: Buffer,
  name: string,
  stats: Stats,
  firstNames: Map<string, string>,
  latest: number,
): Promise<NewEntry> {
  const inode = `${stats.dev}:${stats.ino}`;
  const first = stats.nlink > 1 && !stats.isDirectory() ? firstNames.get(inode) : undefined;
  const common = {
    mode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
    mtime: Math.min(Math.floor(stats.mtimeMs / 1000), latest),
  };
  if (first !== undefined) return { ...common, name, type: 'hardlink', linkname: first };
  firstNames.set(inode, name);
  const xattrs = stats.isSymbolicLink() ? new Map<string, Buffer>() : xattrsOf(path);
  if (stats.isDirectory()) return { ...common, name: `${name}/`, type: 'directory', xattrs };
  if (stats.isFile()) return { ...common, name, type: 'file', size: stats.size, xattrs };
  if (stats.isSymbolicLink()) {
    const linkname = (await readlink(path, { encoding: 'buffer' })).toString('latin1');
    return { ...common, name, type: 'symlink', linkname };
  }
  const type: TarType = stats.isFIFO() ? 'fifo' : stats.isBlockDevice() ? 'block-device' : 'character-device';
  return { ...common, name, type, xattrs, ...(type === 'fifo' ? {} : device(stats.rdev)) };
}

/** The numbers of a device (glibc's sys/sysmacros.h). */
function device(rdev: number): { devMajor: number; devMinor: number } {
  const value = BigInt(rdev);
  const major = ((value >> 8n) & 0xfffn) | ((value >> 32n) & 0xfffff000n);
  const minor = (value & 0xffn) | ((value >> 12n) & 0xffffff00n);
  return { devMajor: Number(major), devMinor: Number(minor) };
}

function xattrsOf(path: Buffer): Map<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const name of llistxattr(path).sort()) {
    const value = KEPT_XATTR.test(name) ? lgetxattr(path, name) : undefined;
    if (value !== undefined) xattrs.set(Buffer.from(name).toString('latin1'), value);
  }
  return xattrs;
}

async function* content(path: Buffer, size: number): AsyncGenerator<Buffer> {
  const file = await open(path, 'r');
  try {
    for (let at = 0; at < size; ) {
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK, size - at));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) {
        const name = printable(path.toString('latin1'));
        throw new BerthError('invalid', `${name}: became shorter while it was read`);
      }
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
