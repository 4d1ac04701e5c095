import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CgroupError, errnoOf, isGone, isUnsupported, type ReadFile, wrap } from './io.ts';
import { parsePids } from './parse.ts';

/** Deadline of kill, freeze and remove when the caller sets none, in milliseconds. */
export const DEFAULT_DEADLINE_MS = 10_000;

/** Child cgroups of a directory; empty when it is gone. */
export function children(dir: string): string[] {
  try {
    // kernfs counts a directory's links as 2 + subdirectories, so a leaf needs no listing of its
    // ~40 files. File systems that do not count links report something else than 2.
    if (statSync(dir).nlink === 2) return [];
    const entries = readdirSync(dir, { withFileTypes: true });
    return entries.filter((e) => e.isDirectory()).map((e) => join(dir, e.name));
  } catch (e) {
    if (isGone(e)) return [];
    throw wrap('list', dir, e);
  }
}

/** A directory and all below it, parents before children. */
export function subtree(dir: string): string[] {
  const out = [dir];
  for (let i = 0; i < out.length; i++) {
    const next = out[i];
    if (next !== undefined) out.push(...children(next));
  }
  return out;
}

function readIds(dir: string, file: string): number[] {
  try {
    return parsePids(readFileSync(join(dir, file), 'utf8'));
  } catch (e) {
    if (isGone(e)) return [];
    // A threaded v2 cgroup refuses to list processes; its threads can be listed and signalled.
    if (isUnsupported(e) && file === 'cgroup.procs') return readIds(dir, 'cgroup.threads');
    throw wrap('read', join(dir, file), e);
  }
}

/** Every process in the subtrees of the given directories, each once, ascending. */
export function procsOf(dirs: readonly string[]): number[] {
  const pids = new Set<number>();
  for (const top of dirs)
    for (const dir of subtree(top)) for (const pid of readIds(dir, 'cgroup.procs')) pids.add(pid);
  return ascending(pids);
}

/**
 * The same of directories that have been listed already; none for one that has gone.
 * @param dirs of a subtree
 */
export function procsIn(dirs: readonly string[], read: ReadFile): number[] {
  // Undefined also where a threaded cgroup refuses to list processes.
  const texts = dirs.map((dir) => read(dir, 'cgroup.procs') ?? read(dir, 'cgroup.threads'));
  return ascending(new Set(texts.flatMap(parsePids)));
}

function ascending(pids: ReadonlySet<number>): number[] {
  return [...pids].sort((a, b) => a - b);
}

/** Those of `dir` and its ancestors below `root` that do not exist, outermost first. */
export function missingDirs(root: string, dir: string): string[] {
  const out: string[] = [];
  for (let d = dir; d !== root && d.length > root.length && !existsSync(d); d = dirname(d)) out.unshift(d);
  return out;
}

/** Makes one cgroup directory; another's making it first is fine. */
export async function makeDir(dir: string): Promise<void> {
  try {
    await mkdir(dir, 0o755);
  } catch (e) {
    if (errnoOf(e) !== 'EEXIST') throw wrap('create cgroup', dir, e);
  }
}

/** Waits before attempt `n` (0, 1, 2 …): 1 ms, doubling up to 50 ms. Throws ETIMEDOUT when aborted. */
export async function backoff(n: number, path: string, what: string, signal: AbortSignal): Promise<void> {
  try {
    await delay(Math.min(2 ** n, 50), undefined, { signal });
  } catch (e) {
    throw new CgroupError('ETIMEDOUT', path, `gave up ${what} ${path}`, e);
  }
}

/**
 * Removes a cgroup and all below it. The kernel answers EBUSY for a moment after the last process has
 * exited, and for good while one is left, so EBUSY is retried until the signal fires.
 */
export async function removeTree(dir: string, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await rmdir(dir);
      return;
    } catch (e) {
      const code = errnoOf(e);
      if (isGone(e)) return;
      if (code !== 'EBUSY' && code !== 'ENOTEMPTY') throw wrap('remove cgroup', dir, e);
    }
    for (const child of children(dir)) await removeTree(child, signal);
    await backoff(attempt, dir, 'removing busy cgroup', signal);
  }
}

/**
 * Removes those of the given directories that are empty, innermost first, and returns the ones still
 * in use. For cgroups that berthd caused to exist: another's child or process keeps a directory alive,
 * and the caller keeps the returned list for its next try.
 */
export async function removeIfEmpty(dirs: readonly string[]): Promise<string[]> {
  const inUse: string[] = [];
  for (const dir of [...dirs].sort((a, b) => b.length - a.length)) {
    try {
      await rmdir(dir);
    } catch (e) {
      const code = errnoOf(e);
      if (isGone(e)) continue;
      if (code !== 'EBUSY' && code !== 'ENOTEMPTY') throw wrap('remove cgroup', dir, e);
      inUse.unshift(dir);
    }
  }
  return inUse;
}
