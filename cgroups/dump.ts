import { lstatSync, readdirSync } from 'node:fs';
import { errnoOf, isGone, readOptional, wrap } from './io.ts';

/** A cgroup's directory in one hierarchy. */
export interface CgroupDirectory {
  readonly directory: string;
  /** What each file holds, without the last line's end; files that cannot be read are left out. */
  readonly files: Readonly<Record<string, string>>;
}

/** Files that are for writing alone have no such bit. */
const READABLE = 0o444;
/** More of one file is for other tools. */
const MAX_TEXT = 65_536;

/** Reads every file of those of the directories that exist, as a person would who looks for himself. */
export function dumpDirectories(dirs: readonly string[]): CgroupDirectory[] {
  return dirs.flatMap((directory) => {
    const names = namesIn(directory);
    return names === undefined ? [] : [{ directory, files: textsOf(directory, names) }];
  });
}

function namesIn(dir: string): string[] | undefined {
  try {
    return readdirSync(dir).sort();
  } catch (e) {
    if (isGone(e)) return undefined;
    throw wrap('list', dir, e);
  }
}

function textsOf(dir: string, names: readonly string[]): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const name of names) {
    const stats = lstatSync(`${dir}/${name}`, { throwIfNoEntry: false });
    if (stats === undefined || !stats.isFile() || (stats.mode & READABLE) === 0) continue;
    const text = readText(dir, name);
    if (text !== undefined) texts[name] = text.slice(0, MAX_TEXT).replace(/\n$/, '');
  }
  return texts;
}

/** Undefined for what the kernel does not tell of this cgroup: `cpu.rt_runtime_us`, a threaded cgroup's processes. */
function readText(dir: string, name: string): string | undefined {
  try {
    return readOptional(dir, name);
  } catch (e) {
    if (['EINVAL', 'EIO', 'EACCES', 'EPERM'].includes(errnoOf(e) ?? '')) return undefined;
    throw e;
  }
}
