import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { isErrno } from '../../errors.ts';
import { makedev, mknod, S_IFBLK, S_IFCHR, S_IFIFO } from '../../sys/mknod.ts';
import { utimensat } from '../../sys/times.ts';
import { lsetxattr } from '../../sys/xattr.ts';
import type { TarEntry, TarHandler } from '../tar/reader.ts';
import type { Segment } from '../tar/sparse.ts';
import { checkSymlink, layerPath, refused } from './names.ts';
import type { UnpackLimits } from './protocol.ts';
import { bytes, isWhiteout, LayerTree, lstat, makeOpaque } from './tree.ts';
import { parseWhiteout, type Whiteout } from './whiteout.ts';

/** Numbers that no file can have: (uid_t)-1 means "leave unchanged" to chown(2). */
const MAX_ID = 0xfffffffe;

/** Overlayfs's own attributes: from an image they could redirect lookups of the whole stack. */
const OVERLAY_XATTR = /^(trusted|user)\.overlay\./;

/**
 * Applies a layer's entries to `/`, which is the layer's directory: this runs in a process of its own after
 * chroot(2), so no name or link can reach anything else, whatever the checks here overlook.
 * Whiteouts become those of overlayfs (OCI image-spec, layer.md, "Applying Changesets").
 *
 * All calls are synchronous: nothing else runs in this process, and threads would only add their hand-over.
 */
export class LayerApplier implements TarHandler {
  readonly tree: LayerTree;
  opaqueRoot = false;
  /** The file being written, if the present entry is one that is kept. */
  #file: { entry: TarEntry; path: string; fd: number; holes?: SparseCursor } | undefined;
  readonly #maxFileBytes: number;
  /** A directory has setgid (inode(7)): what is made in it gets its group. */
  #inheritsGroups = false;

  constructor(limits: UnpackLimits) {
    this.tree = new LayerTree(limits.inodes);
    this.#maxFileBytes = limits.bytes;
  }

  entry(entry: TarEntry): void {
    this.tree.count();
    const parts = layerPath(entry.name, 'path');
    const base = parts.pop();
    if (base === undefined) {
      // Attributes of the root are the container's own, as its writable layer is on top.
      if (entry.type !== 'directory') throw refused('path', entry.name, 'is the root, and no directory');
      return;
    }
    if (parts.some((part) => parseWhiteout(part)?.kind === 'ignored')) return;
    const whiteout = parseWhiteout(base);
    if (whiteout?.kind === 'ignored') return;
    const parent = this.tree.directory(parts);
    if (whiteout !== undefined) this.#hide(parent, whiteout);
    else this.#place(entry, parent, `${parent}/${base}`);
  }

  data(chunk: Buffer): void {
    if (this.#file === undefined) return;
    const { fd, holes } = this.#file;
    if (holes === undefined) writeAll(fd, chunk);
    else for (const { position, piece } of holes.place(chunk)) writeAll(fd, piece, position);
  }

  end(): void {
    if (this.#file === undefined) return;
    const { entry, path, fd } = this.#file;
    this.#file = undefined;
    try {
      // A file has its maker's owner, unless its directory gives it another group.
      const isOwned = entry.uid === 0 && entry.gid === 0 && !this.#inheritsGroups;
      if (!isOwned) fchownSync(fd, entry.uid, entry.gid);
      this.#setXattrs(entry, path);
      // After chown, which clears setuid and setgid, and which open(2) does not set.
      if (!isOwned || entry.mode > 0o777) fchmodSync(fd, entry.mode);
    } finally {
      closeSync(fd);
    }
    setTime(path, entry.mtime);
  }

  /** Sets what could not be set before all entries were there. */
  finish(): void {
    for (const [path, mtime] of this.tree.times) setTime(path, mtime);
  }

  #hide(parent: string, whiteout: Whiteout): void {
    if (whiteout.kind === 'opaque') {
      makeOpaque(parent);
      if (parent === '') this.opaqueRoot = true;
    } else if (whiteout.kind === 'whiteout') {
      const path = `${parent}/${whiteout.name}`;
      const stats = lstat(path);
      // A whiteout is about lower layers only: what this layer brought stays, and already hides them,
      // except for a directory, which would be merged.
      if (stats === undefined) mknod(bytes(path), S_IFCHR, 0);
      else if (stats.isDirectory()) makeOpaque(path);
    }
  }

  #place(entry: TarEntry, parent: string, path: string): void {
    if (entry.uid > MAX_ID || entry.gid > MAX_ID)
      throw refused('path', entry.name, 'has an impossible owner');
    // Before anything is removed: the target may be what this entry replaces.
    const linkTarget = entry.type === 'hardlink' ? this.tree.hardlinkTarget(entry.linkname, entry.name) : '';
    if (linkTarget === path) return;
    // Most files are the first of their name, so it is not asked for; O_EXCL follows no symlink (open(2)).
    if (entry.type === 'file' && this.#openFile(entry, path)) return;
    const stats = lstat(path);
    const isMerge = entry.type === 'directory' && stats?.isDirectory() === true;
    if (stats !== undefined && !isMerge) this.tree.remove(path, stats);
    if (entry.type === 'file') {
      if (!this.#openFile(entry, path)) throw refused('file', entry.name, 'cannot take the place of another');
      return;
    }
    if (entry.type === 'hardlink') {
      // The inode has its attributes already, and chown would clear its capabilities.
      linkSync(bytes(linkTarget), bytes(path));
      return;
    }
    if (!isMerge) this.#make(entry, parent, path);
    if (entry.type === 'directory' && stats !== undefined && isWhiteout(stats)) makeOpaque(path);
    this.#setAttributes(entry, path);
  }

  /** Begins a file. False when something of that name is there. */
  #openFile(entry: TarEntry, path: string): boolean {
    try {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
      const fd = openSync(bytes(path), flags, entry.mode & 0o777);
      this.#file = { entry, path, fd };
      if (entry.sparse !== undefined) this.#makeSparse(entry, entry.sparse, fd);
      return true;
    } catch (e: unknown) {
      if (isErrno(e, 'EEXIST')) return false;
      throw e;
    }
  }

  #makeSparse(entry: TarEntry, { segments, realSize }: NonNullable<TarEntry['sparse']>, fd: number): void {
    // It takes no room here, but whoever copies it elsewhere would need that.
    if (realSize > this.#maxFileBytes)
      throw refused('file', entry.name, `has ${realSize} bytes, more than ${this.#maxFileBytes}`);
    ftruncateSync(fd, realSize);
    if (this.#file !== undefined) this.#file.holes = new SparseCursor(segments);
  }

  #make(entry: TarEntry, parent: string, path: string): void {
    switch (entry.type) {
      case 'directory':
        mkdirSync(bytes(path), 0o700);
        return;
      case 'symlink':
        checkSymlink(parent.split('/').length - 1, entry.linkname, entry.name);
        symlinkSync(Buffer.from(entry.linkname, 'latin1'), bytes(path));
        return;
      case 'fifo':
        mknod(bytes(path), S_IFIFO | 0o600, 0);
        return;
      default: {
        const kind = entry.type === 'block-device' ? S_IFBLK : S_IFCHR;
        mknod(bytes(path), kind | 0o600, makedev(entry.devMajor, entry.devMinor));
      }
    }
  }

  #setAttributes(entry: TarEntry, path: string): void {
    lchownSync(bytes(path), entry.uid, entry.gid);
    this.#setXattrs(entry, path);
    if (entry.type !== 'symlink') chmodSync(bytes(path), entry.mode);
    if (entry.type === 'directory') {
      if (entry.mode & 0o2000) this.#inheritsGroups = true;
      this.tree.describe(path, entry.mtime);
    } else setTime(path, entry.mtime);
  }

  /**
   * As containerd: what the file system does not support is left out, and so are `user.` attributes of
   * other than files and directories, which Linux forbids (xattr(7)).
   */
  #setXattrs(entry: TarEntry, path: string): void {
    for (const [name, value] of entry.xattrs) {
      if (OVERLAY_XATTR.test(name)) continue;
      try {
        lsetxattr(bytes(path), Buffer.from(name, 'latin1').toString('utf8'), value);
      } catch (e: unknown) {
        if (isErrno(e, 'ENOTSUP', 'EOPNOTSUPP')) continue;
        const isPlain = entry.type === 'file' || entry.type === 'directory';
        if (isErrno(e, 'EPERM') && name.startsWith('user.') && !isPlain) continue;
        throw e;
      }
    }
  }
}

function writeAll(fd: number, chunk: Buffer, position?: number): void {
  for (let at = 0; at < chunk.length; ) {
    at += writeSync(fd, chunk, at, chunk.length - at, position === undefined ? undefined : position + at);
  }
}

/** Where the content of a sparse file, which comes without its holes, belongs. */
class SparseCursor {
  readonly #segments: readonly Segment[];
  #index = 0;
  /** Bytes of the present segment that have been placed. */
  #done = 0;

  constructor(segments: readonly Segment[]) {
    this.#segments = segments;
  }

  *place(chunk: Buffer): Generator<{ position: number; piece: Buffer }> {
    for (let at = 0; at < chunk.length; ) {
      const segment = this.#segments[this.#index];
      // The reader has checked that the segments have room for all.
      if (segment === undefined) return;
      const length = Math.min(segment.length - this.#done, chunk.length - at);
      if (length > 0) yield { position: segment.offset + this.#done, piece: chunk.subarray(at, at + length) };
      at += length;
      this.#done += length;
      if (this.#done < segment.length) continue;
      this.#index += 1;
      this.#done = 0;
    }
  }
}

function setTime(path: string, mtime: bigint): void {
  utimensat(bytes(path), mtime, mtime);
}
