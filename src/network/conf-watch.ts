import { type FSWatcher, watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isErrno, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type LoadedConf, loadConf } from './conf.ts';

/** Milliseconds between looks at the directory when the kernel gives no watch (inotify limit reached). */
const pollMs = 5_000;
/** Milliseconds that a burst of events is gathered; installers write several files at once. */
const settleMs = 50;

/** What the directory held at the last look; `problem` says why it could not be read. */
export type ConfState = LoadedConf & { problem?: string };

/**
 * Keeps the network configuration of a directory current. The directory may come later, or be removed
 * and made again: until it is there, its nearest existing ancestor is watched.
 */
export class ConfWatcher {
  readonly #dir: string;
  readonly #log: Logger;
  #state: ConfState = { skipped: [] };
  #watcher: FSWatcher | undefined;
  /** Path, device and inode of what is watched: a directory of the same name may be another one. */
  #watched = '';
  #timer: NodeJS.Timeout | undefined;
  /** The read under way and the one that must follow it, so that many callers share two. */
  #reading: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #closed = false;

  constructor(dir: string, log: Logger) {
    this.#dir = dir;
    this.#log = log;
  }

  /** The directory that is watched. */
  get dir(): string {
    return this.#dir;
  }

  /** What the last look found. */
  current(): ConfState {
    return this.#state;
  }

  /**
   * Looks again and returns what is there now; also starts the watch. Every call sees at least what was
   * on disk when it was made.
   */
  async refresh(): Promise<ConfState> {
    if (this.#reading === undefined && this.#next === undefined) {
      this.#reading = this.#read();
      await this.#reading;
    } else {
      // The look under way may have passed the file that this caller knows of.
      this.#next ??= Promise.resolve(this.#reading).then(() => {
        this.#next = undefined;
        this.#reading = this.#read();
        return this.#reading;
      });
      await this.#next;
    }
    return this.#state;
  }

  close(): void {
    this.#closed = true;
    this.#unwatch();
    clearTimeout(this.#timer);
  }

  async #read(): Promise<void> {
    try {
      // Watch first, read second: what changes between the two is an event.
      await this.#rewatch();
      this.#replace(await loadConf(this.#dir));
    } catch (e: unknown) {
      this.#replace({ skipped: [], problem: messageOf(e) });
    } finally {
      this.#reading = undefined;
    }
  }

  #replace(state: ConfState): void {
    const before = this.#state;
    this.#state = state;
    if (JSON.stringify(before) === JSON.stringify(state)) return;
    for (const { file, reason } of state.skipped)
      this.#log.warn({ file, reason }, 'CNI configuration skipped');
    if (state.network !== undefined)
      this.#log.info({ file: state.file, network: state.network.name }, 'CNI configuration in use');
    else this.#log.warn({ dir: this.#dir, problem: state.problem }, 'no CNI configuration');
  }

  async #rewatch(): Promise<void> {
    const target = await this.#nearest();
    if (this.#closed || (target.key === this.#watched && this.#watcher !== undefined)) return;
    this.#unwatch();
    try {
      const watcher = watch(target.path, { persistent: false }, () => this.#soon(settleMs));
      watcher.on('error', () => this.#lost(watcher));
      this.#watcher = watcher;
      this.#watched = target.key;
    } catch (e: unknown) {
      if (!isErrno(e, 'ENOENT'))
        this.#log.warn({ err: e, dir: target.path }, 'CNI directory is polled, not watched');
      this.#soon(pollMs);
      return;
    }
    // Made or replaced between the look and the watch: that was no event, so look once more.
    if ((await this.#nearest()).key !== target.key) this.#soon(0);
  }

  /** The directory itself, or the nearest ancestor that exists. */
  async #nearest(): Promise<{ path: string; key: string }> {
    for (let path = this.#dir; ; path = dirname(path)) {
      try {
        const { dev, ino } = await stat(path);
        return { path, key: `${dev}:${ino}:${path}` };
      } catch (e: unknown) {
        if (!isErrno(e, 'ENOENT') || path === dirname(path)) throw e;
      }
    }
  }

  #lost(watcher: FSWatcher): void {
    if (this.#watcher !== watcher) return;
    this.#unwatch();
    this.#soon(pollMs);
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#watched = '';
  }

  #soon(ms: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    // refresh() never rejects: what goes wrong becomes the state's `problem`.
    this.#timer = setTimeout(() => void this.refresh(), ms);
    this.#timer.unref();
  }
}
