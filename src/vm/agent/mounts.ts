import { mkdir, readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, during } from '../../errors.ts';
import { mountWithOptions } from '../../sys/mount-options.ts';
import type { GuestMount } from '../protocol/messages.ts';

const SERIAL = 'serial:';
const DEVICES = '/dev/vd';
/** What a place has when it has no disk, in sectors of 512 bytes. */
const EMPTY_SECTORS = 8;
/** Until a disk that was added is there, and how often that is asked, milliseconds. */
const DISK_MS = 10_000;
const DISK_POLL_MS = 20;

/** Mounts, making the target's directory. @throws BerthError naming the target */
export async function addMount({ source, type, target, options }: GuestMount): Promise<void> {
  try {
    await mkdir(target, { recursive: true });
    if (type === 'overlay') await makeLayer(options);
    mountWithOptions({ source: await deviceOf(source), target, type, options });
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
 * Waits for a disk that has just been added: the kernel takes a moment to find it, or to see that there is another
 * behind a device that was a place for one.
 *
 * @throws BerthError `notFound` when no disk has the serial number, or the place stays empty
 */
export async function deviceOf(source: string): Promise<string> {
  if (!source.startsWith(SERIAL) && !source.startsWith(DEVICES)) return source;
  const giveUp = performance.now() + DISK_MS;
  for (;;) {
    const device = source.startsWith(SERIAL)
      ? await withSerial(source.slice(SERIAL.length))
      : await notEmpty(source);
    if (device !== undefined) return device;
    if (performance.now() > giveUp) throw new BerthError('notFound', `there is no disk ${source}`);
    await delay(DISK_POLL_MS);
  }
}

async function withSerial(wanted: string): Promise<string | undefined> {
  for (const name of await readdir('/sys/block')) {
    const serial = await readFile(`/sys/block/${name}/serial`, 'utf8').catch(() => '');
    if (serial.trim() === wanted) return `/dev/${name}`;
  }
  return undefined;
}

async function notEmpty(device: string): Promise<string | undefined> {
  const name = device.slice('/dev/'.length);
  const sectors = await readFile(`/sys/block/${name}/size`, 'utf8').catch(() => '0');
  return Number(sectors) > EMPTY_SECTORS ? device : undefined;
}
