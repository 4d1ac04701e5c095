import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { isGone, isUnsupported, type ReadFile, readOptional, wrap } from './io.ts';

/**
 * How many files are kept open: those that the kubelet's lists want of a hundred pods with a cgroup each. Each
 * takes a page of the kernel's memory for its text, about 5 KiB in all; and every program that is started gets a
 * copy of all descriptors and closes it, 0.1 ms for a thousand.
 */
const MAX_OPEN = 2048;
/** Nor more than this part of the descriptors that the process may have: the rest is for connections and programs. */
const MAX_SHARE = 4;
/** How old a limit may be, milliseconds. */
const LIMIT_AGE_MS = 30_000;
/** A file that was not read between so many looks through them is closed: its reader has gone. */
const IDLE_ROUNDS = 12;
/** Of the buffer at first: more than any file that is read often has. */
const BUFFER_BYTES = 16_384;
/**
 * A text shorter than this came whole. The kernel (fs/seq_file.c) fills a page with as many records as fit,
 * so what is missing was a record longer than the rest of the page; those are lines.
 */
const WHOLE_BYTES = 3072;
/** In place of a descriptor: the cgroup has no such file. */
const ABSENT = -1;

interface Kept {
  readonly fd: number;
  /** In which it was read last. */
  round: number;
}

/**
 * Reads files of cgroups through descriptors that stay open: opening and closing one takes the kernel ten
 * times as long as its text does. When there are too many files, the others are opened each time.
 */
export class KeptFiles {
  readonly #max: number;
  /** By directory, then by file name. */
  readonly #dirs = new Map<string, Map<string, Kept>>();
  /** Texts of files that hardly change, by directory and file name. */
  readonly #limits = new Map<string, Map<string, { text: string | undefined; until: number }>>();
  #open = 0;
  #round = 0;
  #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);

  constructor(max = mostKept(readFileSync('/proc/self/limits', 'utf8'))) {
    this.#max = max;
  }

  /** How many are open. */
  get size(): number {
    return this.#open;
  }

  /** As {@link readOptional}. */
  readonly read: ReadFile = (dir, file) => {
    const known = this.#dirs.get(dir)?.get(file);
    if (known === undefined) return this.#first(dir, file);
    if (known.fd === ABSENT) return undefined;
    known.round = this.#round;
    try {
      return this.#text(known.fd);
    } catch (e) {
      this.forget(dir);
      // The cgroup that it was opened for has gone. Another one may have its name by now.
      if (isGone(e) || isUnsupported(e)) return readOptional(dir, file);
      throw wrap('read', `${dir}/${file}`, e);
    }
  };

  /** The same for a limit, which may have been read a while ago: there are as many of these as of figures. */
  readonly readLimit: ReadFile = (dir, file) => {
    const known = this.#limits.get(dir)?.get(file);
    const now = performance.now();
    if (known !== undefined && now < known.until) return known.text;
    const text = readOptional(dir, file);
    const files = this.#limits.get(dir) ?? new Map();
    this.#limits.set(dir, files.set(file, { text, until: now + LIMIT_AGE_MS }));
    return text;
  };

  /**
   * Closes the files of all other directories and those that were not read for long, and looks anew for
   * files that were absent. To be called every few seconds.
   */
  retain(dirs: ReadonlySet<string>): void {
    this.#round++;
    for (const dir of this.#limits.keys()) if (!dirs.has(dir)) this.#limits.delete(dir);
    for (const [dir, files] of this.#dirs) {
      if (!dirs.has(dir)) this.forget(dir);
      for (const [file, { fd, round }] of files) {
        if (fd !== ABSENT && this.#round - round <= IDLE_ROUNDS) continue;
        files.delete(file);
        this.#close(fd);
      }
    }
  }

  /** Closes the files of a directory, whose limits are read anew. */
  forget(dir: string): void {
    this.#limits.delete(dir);
    const files = this.#dirs.get(dir);
    if (files === undefined) return;
    this.#dirs.delete(dir);
    for (const { fd } of files.values()) this.#close(fd);
    files.clear();
  }

  #close(fd: number): void {
    if (fd === ABSENT) return;
    closeSync(fd);
    this.#open--;
  }

  #first(dir: string, file: string): string | undefined {
    if (this.#open >= this.#max) return readOptional(dir, file);
    const files = this.#dirs.get(dir);
    const path = `${dir}/${file}`;
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch (e) {
      if (!isGone(e) && !isUnsupported(e)) throw wrap('open', path, e);
      // Where nothing was ever found the whole cgroup may be yet to come.
      files?.set(file, { fd: ABSENT, round: this.#round });
      return undefined;
    }
    try {
      const text = this.#text(fd);
      const kept = { fd, round: this.#round };
      if (files === undefined) this.#dirs.set(dir, new Map([[file, kept]]));
      else files.set(file, kept);
      this.#open++;
      return text;
    } catch (e) {
      closeSync(fd);
      if (isGone(e) || isUnsupported(e)) return undefined;
      throw wrap('read', path, e);
    }
  }

  #text(fd: number): string {
    let length = 0;
    for (;;) {
      const got = readSync(fd, this.#buffer, length, this.#buffer.length - length, length);
      length += got;
      if (got === 0 || length < WHOLE_BYTES) return this.#buffer.toString('latin1', 0, length);
      if (length === this.#buffer.length) {
        this.#buffer = Buffer.concat([this.#buffer], length * 2);
      }
    }
  }
}

/**
 * How many files a process may keep open.
 *
 * @param limits the text of its /proc/<pid>/limits. The soft limit counts, which Node.js raises to the hard one when
 *   it starts.
 */
export function mostKept(limits: string): number {
  const [, soft] = /^Max open files +(\d+)/m.exec(limits) ?? [];
  return soft === undefined ? MAX_OPEN : Math.min(MAX_OPEN, Math.floor(Number(soft) / MAX_SHARE));
}
