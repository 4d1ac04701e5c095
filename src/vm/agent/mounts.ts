import { mkdir, readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, during } from '../../errors.ts';
import {
  MS_BIND,
  MS_NOATIME,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_RELATIME,
  MS_REMOUNT,
  mount,
} from '../../sys/mount.ts';
import type { GuestMount } from '../protocol/messages.ts';

/** Options of mount(8) that are flags of mount(2); all others are the file system's. */
const FLAGS: Readonly<Record<string, number>> = {
  ro: MS_RDONLY,
  rw: 0,
  nosuid: MS_NOSUID,
  nodev: MS_NODEV,
  noexec: MS_NOEXEC,
  noatime: MS_NOATIME,
  relatime: MS_RELATIME,
  bind: MS_BIND,
  rbind: MS_BIND | MS_REC,
  defaults: 0,
};
const SERIAL = 'serial:';
/** Until a disk that was added is there, and how often that is asked, milliseconds. */
const DISK_MS = 10_000;
const DISK_POLL_MS = 20;

/** Mounts, making the target's directory. @throws BerthError naming the target */
export async function addMount({ source, type, target, options }: GuestMount): Promise<void> {
  const known = options.filter((option) => Object.hasOwn(FLAGS, option));
  const data = options.filter((option) => !Object.hasOwn(FLAGS, option)).join(',');
  let flags = known.reduce((all, option) => all | (FLAGS[option] ?? 0), 0);
  if (type === 'bind') flags |= MS_BIND;
  try {
    await mkdir(target, { recursive: true });
    if (type === 'overlay') await makeLayer(options);
    mount(await deviceOf(source), target, type === 'bind' ? null : type, flags, data);
    // Every other flag of a bind is ignored until it is mounted again.
    if ((flags & MS_BIND) !== 0 && (flags & ~(MS_BIND | MS_REC)) !== 0) {
      mount(null, target, null, (flags & ~MS_REC) | MS_REMOUNT);
    }
  } catch (e: unknown) {
    throw during(`mount ${target}`, e);
  }
}

/** The directories of an overlay that can be written to, on a file system that may be empty. */
async function makeLayer(options: readonly string[]): Promise<void> {
  for (const option of options) {
    const [, dir] = /^(?:upper|work)dir=(.*)$/.exec(option) ?? [];
    if (dir !== undefined) await mkdir(dir, { recursive: true, mode: 0o755 });
  }
}

/**
 * Waits for a disk that has just been added: the kernel takes a moment to find it.
 *
 * @throws BerthError `notFound` when no disk has the serial number
 */
export async function deviceOf(source: string): Promise<string> {
  if (!source.startsWith(SERIAL)) return source;
  const wanted = source.slice(SERIAL.length);
  const giveUp = performance.now() + DISK_MS;
  for (;;) {
    for (const name of await readdir('/sys/block')) {
      const serial = await readFile(`/sys/block/${name}/serial`, 'utf8').catch(() => '');
      if (serial.trim() === wanted) return `/dev/${name}`;
    }
    if (performance.now() > giveUp) {
      throw new BerthError('notFound', `no disk has the serial number "${wanted}"`);
    }
    await delay(DISK_POLL_MS);
  }
}
