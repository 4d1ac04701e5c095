import { open, rm } from 'node:fs/promises';
import { BerthError } from '../../errors.ts';
import { runOk } from '../../sys/exec.ts';

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
 * and that hangs.
 *
 * @throws BerthError with the program's last line, `deadline`; SyscallError ENOENT when mke2fs or mkfs.erofs is
 *   not installed; the signal's reason. No file is left then
 */
export async function makeImage(options: ImageOptions, signal: AbortSignal): Promise<void> {
  const { type, source, target } = options;
  const limits = { signal, timeoutMs: BUILD_MS, maxOutput: MAX_OUTPUT };
  try {
    if (type === 'erofs') {
      // Not compressed: a guest that maps it finds pages as they are.
      await runOk(['mkfs.erofs', '--quiet', target, source], limits);
      return;
    }
    const bytes = await ext4Size(source, options.freeBytes, signal);
    const file = await open(target, 'wx', 0o600);
    await file.truncate(bytes).finally(() => file.close());
    await runOk(
      [
        ...(['mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0'] as const),
        // It is as lasting as its container: what a crash would lose is lost in any case.
        ...['-O', '^has_journal', '-E', 'lazy_itable_init=1,nodiscard', '-d', source, target],
      ],
      limits,
    );
  } catch (e: unknown) {
    await rm(target, { force: true });
    throw e;
  }
}

/** Bytes, in whole MiB. */
async function ext4Size(source: string, freeBytes: bigint, signal: AbortSignal): Promise<number> {
  const limits = { signal, timeoutMs: BUILD_MS, maxOutput: MAX_OUTPUT };
  const du = async (...args: string[]): Promise<number> => {
    const { stdout } = await runOk(['du', '--summarize', ...args, '--', source], limits);
    const size = Number.parseInt(stdout.toString(), 10);
    if (Number.isNaN(size)) throw new BerthError('internal', `du: no size of ${source}`);
    return size;
  };
  const [content, files] = [await du('--block-size=1'), await du('--inodes')];
  const needed = content * OVERHEAD + files * PER_FILE + Number(freeBytes);
  // The smallest that mke2fs makes with room for its tables.
  return Math.max(Math.ceil(needed / MIB), 16) * MIB;
}
