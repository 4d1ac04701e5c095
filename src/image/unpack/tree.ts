import { lstatSync, mkdirSync, readdirSync, readlinkSync, rmdirSync, type Stats, unlinkSync } from 'node:fs';
import { BerthError } from '../../errors.ts';
import { lsetxattr } from '../../sys/xattr.ts';
import { layerPath, refused } from './names.ts';

/** Of an overlay's lower directory (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"). */
const OPAQUE_XATTR = 'trusted.overlay.opaque';

/**
 * Bytes of a path inside of the layer. The kernel takes 4095 from its root, and the host must be able to name
 * the same file below the layer's directory, if only to remove it.
 */
const MAX_PATH = 3072;

/** The kernel's own bound on symlinks in one path (path_resolution(7)). */
const MAX_SYMLINKS = 40;

const FREE_STEPS = 1_000_000;
const STEPS_PER_INODE = 50;

/** A path of the layer for a system call; names are bytes, kept as latin1 text. ASCII needs no other form. */
export function bytes(path: string): Buffer | string {
  if (path === '') return '/';
  return ASCII.test(path) ? path : Buffer.from(path, 'latin1');
}

const ASCII = /^[ -~]*$/;

/** Undefined when nothing is there; never follows a symlink. */
export function lstat(path: string): Stats | undefined {
  return lstatSync(bytes(path), { throwIfNoEntry: false });
}

/** A whiteout as overlayfs has it: a character device 0/0. */
export function isWhiteout(stats: Stats): boolean {
  return stats.isCharacterDevice() && stats.rdev === 0;
}

/** Hides what lower layers have in this directory. */
export function makeOpaque(path: string): void {
  lsetxattr(bytes(path), OPAQUE_XATTR, Buffer.from('y'));
}

/**
 * The directories of a layer being unpacked, seen from inside of it (this process's root is the layer).
 *
 * Parents are resolved part by part here rather than by the kernel, because a symlinked parent may point
 * to a directory that the layer has yet to imply. Results are remembered, so that the work is linear in
 * the number of directories, however deep (GHSA-rp3h-jf77-q9p4 is what happens otherwise).
 */
export class LayerTree {
  readonly #maxInodes: number;
  /** Lexical path → real path. */
  readonly #resolved = new Map<string, string>();
  /** Real paths of directories that no entry described, in order of making. */
  readonly #implied = new Set<string>();
  /** Modification times of described directories by real path, set at the end: each new child changes them. */
  readonly #times = new Map<string, bigint>();
  #inodes = 0;
  #steps = 0;

  constructor(maxInodes: number) {
    this.#maxInodes = maxInodes;
  }

  get inodes(): number {
    return this.#inodes;
  }

  get implied(): Iterable<string> {
    return this.#implied;
  }

  get times(): Iterable<[string, bigint]> {
    return this.#times;
  }

  /** Counts one more object. @throws BerthError `exhausted` past the limit */
  count(): void {
    this.#inodes += 1;
    if (this.#inodes > this.#maxInodes) {
      throw new BerthError('exhausted', `layer: more than ${this.#maxInodes} files and directories`);
    }
  }

  /** A directory that an entry describes. */
  describe(path: string, mtime: bigint): void {
    this.#implied.delete(path);
    this.#times.set(path, mtime);
  }

  /**
   * The real path of the directory `parts` ('' is the root), made as far as it is missing.
   *
   * @throws BerthError `invalid` when a part is no directory or symlinks go in circles
   */
  directory(parts: readonly string[]): string {
    let known = parts.length;
    while (known > 0 && !this.#resolved.has(parts.slice(0, known).join('/'))) known -= 1;
    let real = this.#resolved.get(parts.slice(0, known).join('/')) ?? '';
    for (let i = known; i < parts.length; i++) {
      real = this.#enter(real, parts[i] ?? '', parts.join('/'));
      this.#resolved.set(parts.slice(0, i + 1).join('/'), real);
    }
    return real;
  }

  /** One part further from a real directory, through any symlinks. */
  #enter(from: string, part: string, name: string): string {
    const todo = [part];
    let real = from;
    let links = 0;
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      if (next === '' || next === '.') continue;
      this.#step();
      if (next === '..') {
        real = real.slice(0, Math.max(0, real.lastIndexOf('/')));
        continue;
      }
      const path = `${real}/${next}`;
      if (path.length > MAX_PATH) throw refused('path', name, `is longer than ${MAX_PATH} bytes`);
      const stats = lstat(path);
      if (stats?.isSymbolicLink()) {
        links += 1;
        if (links > MAX_SYMLINKS) throw refused('path', name, 'goes through too many symlinks');
        const target = readlinkSync(bytes(path), 'latin1');
        if (target.startsWith('/')) real = '';
        todo.push(...target.split('/').reverse());
      } else {
        if (stats !== undefined && !stats.isDirectory() && !isWhiteout(stats)) {
          throw refused('path', name, 'has a part that is no directory');
        }
        if (!stats?.isDirectory()) this.#imply(path, stats);
        real = path;
      }
    }
    return real;
  }

  /**
   * Bounds the looking up of parents, which remembered results keep to one step a directory: only an archive
   * that replaces directories and symlinks over and over, so that they are forgotten, needs many more.
   */
  #step(): void {
    this.#steps += 1;
    if (this.#steps > FREE_STEPS + STEPS_PER_INODE * this.#inodes) {
      throw new BerthError('invalid', 'layer: replaces directories on long paths over and over');
    }
  }

  #imply(path: string, whiteout: Stats | undefined): void {
    this.count();
    if (whiteout !== undefined) unlinkSync(bytes(path));
    mkdirSync(bytes(path), 0o755);
    // The whiteout hid the lower layers' directory; so must the new one.
    if (whiteout !== undefined) makeOpaque(path);
    this.#implied.add(path);
  }

  /** Removes what is at `path`, so that a later entry of another kind can take its place. */
  remove(path: string, stats: Stats): void {
    if (stats.isDirectory() || stats.isSymbolicLink()) this.#resolved.clear();
    const pending: { path: string; emptied: boolean }[] = [{ path, emptied: false }];
    if (!stats.isDirectory()) {
      unlinkSync(bytes(path));
      return;
    }
    for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
      if (dir.emptied) {
        rmdirSync(bytes(dir.path));
        this.#times.delete(dir.path);
        this.#implied.delete(dir.path);
        continue;
      }
      pending.push({ path: dir.path, emptied: true });
      for (const child of readdirSync(bytes(dir.path), { withFileTypes: true, encoding: 'latin1' })) {
        const childPath = `${dir.path}/${child.name}`;
        if (child.isDirectory()) pending.push({ path: childPath, emptied: false });
        else unlinkSync(bytes(childPath));
      }
    }
  }

  /** The target of a hardlink: an existing non-directory of this layer. @throws BerthError `invalid` */
  hardlinkTarget(linkname: string, name: string): string {
    const parts = layerPath(linkname, 'hardlink target');
    const base = parts.pop();
    const target = base === undefined ? '' : `${this.directory(parts)}/${base}`;
    const stats = lstat(target);
    if (stats === undefined || stats.isDirectory() || isWhiteout(stats)) {
      throw refused('hardlink', name, 'has a target that is no file of the same layer');
    }
    return target;
  }
}

/** Allocated bytes and inodes below `/`, the root itself included; a file with several names counts once. */
export function measureTree(): { size: number; inodes: number } {
  const seen = new Set<number>();
  const pending = [''];
  let size = (lstat('')?.blocks ?? 0) * 512;
  let inodes = 1;
  for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
    for (const name of readdirSync(bytes(dir), { encoding: 'latin1' })) {
      const path = `${dir}/${name}`;
      const stats = lstat(path);
      if (stats === undefined) continue;
      if (stats.isDirectory()) pending.push(path);
      else if (stats.nlink > 1) {
        if (seen.has(stats.ino)) continue;
        seen.add(stats.ino);
      }
      size += stats.blocks * 512;
      inodes += 1;
    }
  }
  return { size, inodes };
}
