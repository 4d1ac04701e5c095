import { readlinkSync } from 'node:fs';
import { stat, statfs } from 'node:fs/promises';
import { basename } from 'node:path';
import { isErrno } from '../errors.ts';
import type { FilesystemUse } from './family.ts';

/**
 * Finds block devices' names by their numbers, each once: `/dev/sda`, or `8:0` for one that the kernel does
 * not list (any more). To be made anew for each scrape, as numbers are used again.
 */
export function deviceNames(): (major: number, minor: number) => string {
  const known = new Map<string, string>();
  return (major, minor) => {
    const numbers = `${major}:${minor}`;
    const name = known.get(numbers) ?? blockDevice(numbers);
    known.set(numbers, name);
    return name;
  };
}

function blockDevice(numbers: string): string {
  try {
    return `/dev/${basename(readlinkSync(`/sys/dev/block/${numbers}`))}`;
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT')) return numbers;
    throw e;
  }
}

/** The file system that holds a directory of berth's own. */
export async function filesystemOf(
  dir: string,
  deviceName: (major: number, minor: number) => string,
): Promise<Omit<FilesystemUse, 'usedBytes'>> {
  const [{ dev }, fs] = await Promise.all([stat(dir, { bigint: true }), statfs(dir, { bigint: true })]);
  // As gnu_dev_major and gnu_dev_minor take the number apart.
  const major = Number(((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n));
  const minor = Number((dev & 0xffn) | ((dev >> 12n) & 0xffffff00n));
  return {
    device: deviceName(major, minor),
    sizeBytes: fs.blocks * fs.bsize,
    inodes: fs.files,
    inodesFree: fs.ffree,
  };
}
