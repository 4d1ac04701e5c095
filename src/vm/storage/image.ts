import { open, rm } from 'node:fs/promises';
import { BerthError } from '../../errors.ts';
import { type RunOptions, runOk } from '../../sys/exec.ts';

const MIB = 1 << 20;
/** A root file system of a gigabyte takes 5 s. */
const BUILD_MS = 120_000;
const MAX_OUTPUT = 1 << 16;
/** Of ext4: blocks that are not full, inodes and tables, for each byte of content. */
const OVERHEAD = 1.15;
/** Bytes of an inode and of its share of a directory. */
const PER_FILE = 512;

/**
 * `erofs`: read-only and compact; `ext4`: writable, with room. Both keep owners, modes, links, device nodes and
 * extended attributes.
 */
export type ImageType = 'erofs' | 'ext4';

/** What an image is made of. */
export interface ImageOptions {
  type: ImageType;
  /** The directory that becomes the root of the image. Mounts below it are part of it. */
  source: string;
  /** Is made; must not exist. */
  target: string;
  /** Bytes free in an ext4 image, taken from the disk only when written. */
  freeBytes: bigint;
}

/**
 * Makes a block image of a directory, by a program of its own, since the directory may be one that a user chose
 * and that hangs. The root of an ext4 image is always root's own, mode 0755.
 *
 * @throws BerthError with the program's last line, `deadline`; SyscallError ENOENT when mke2fs or mkfs.erofs is
 *   not installed; the signal's reason. No file is left then
 */
export async function makeImage(options: ImageOptions, signal?: AbortSignal): Promise<void> {
  const { type, source, target, freeBytes } = options;
  if (type === 'ext4') {
    const bytes = await ext4Size(source, freeBytes, signal);
    await makeExt4(target, bytes, ['-d', source], signal);
    return;
  }
  // Not compressed: a guest that maps it finds pages as they are.
  await orRemoved(target, runOk(['mkfs.erofs', '--quiet', target, source], limits(signal)));
}

/**
 * Makes an empty ext4 image.
 *
 * @param bytes of the image, taken from the disk only when written
 * @throws as {@link makeImage}
 */
export async function makeEmptyImage(target: string, bytes: bigint, signal?: AbortSignal): Promise<void> {
  await makeExt4(target, Number(bytes), [], signal);
}

async function makeExt4(
  target: string,
  bytes: number,
  more: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const file = await open(target, 'wx', 0o600);
  const make = async (): Promise<void> => {
    await file.truncate(bytes).finally(() => file.close());
    await runOk(
      [
        ...(['mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0'] as const),
        // It is as lasting as its container: what a crash would lose is lost in any case.
        ...['-O', '^has_journal', '-E', 'lazy_itable_init=1,nodiscard', ...more, target],
      ],
      limits(signal),
    );
    // No image has it, and e2fsck makes it anew.
    await runOk(['debugfs', '-w', '-R', 'rmdir lost+found', target], limits(signal));
  };
  await orRemoved(target, make());
}

async function orRemoved(target: string, work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (e: unknown) {
    await rm(target, { force: true });
    throw e;
  }
}

function limits(signal: AbortSignal | undefined): RunOptions {
  return { timeoutMs: BUILD_MS, maxOutput: MAX_OUTPUT, ...(signal === undefined ? {} : { signal }) };
}

/** Bytes, in whole MiB. */
async function ext4Size(source: string, freeBytes: bigint, signal: AbortSignal | undefined): Promise<number> {
  const du = async (...args: string[]): Promise<number> => {
    const { stdout } = await runOk(['du', '--summarize', ...args, '--', source], limits(signal));
    const size = Number.parseInt(stdout.toString(), 10);
    if (Number.isNaN(size)) throw new BerthError('internal', `du: no size of ${source}`);
    return size;
  };
  const [content, files] = [await du('--block-size=1'), await du('--inodes')];
  const needed = content * OVERHEAD + files * PER_FILE + Number(freeBytes);
  // The smallest that mke2fs makes with room for its tables.
  return Math.max(Math.ceil(needed / MIB), 16) * MIB;
}
