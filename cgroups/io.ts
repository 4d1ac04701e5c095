import { constants, readFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';

/** A cgroup operation that failed: `code` is an errno name, `path` the file or cgroup at fault. */
export class CgroupError extends Error {
  readonly code: string;
  readonly path: string;

  constructor(code: string, path: string, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'CgroupError';
    this.code = code;
    this.path = path;
  }
}

export function errnoOf(e: unknown): string | undefined {
  return e instanceof Error && 'code' in e && typeof e.code === 'string' ? e.code : undefined;
}

/**
 * Whether an error says that the cgroup or file is not there. ENODEV is what an already open file of
 * a removed cgroup answers.
 */
export function isGone(e: unknown): boolean {
  const code = errnoOf(e);
  return code === 'ENOENT' || code === 'ENODEV';
}

/** Whether the kernel cannot do it with this cgroup or file. For EOPNOTSUPP Node has the other name of that number. */
export function isUnsupported(e: unknown): boolean {
  const code = errnoOf(e);
  return code === 'ENOTSUP' || code === 'EOPNOTSUPP';
}

/** Wraps a Node errno error so that it names the cgroup file. */
export function wrap(action: string, path: string, e: unknown): CgroupError {
  const code = errnoOf(e) ?? 'EIO';
  return new CgroupError(code, path, `cannot ${action} ${path}: ${code}`, e);
}

/**
 * Reads a file of a cgroup's directory; undefined when it (or its cgroup) does not exist.
 * @throws CgroupError
 */
export type ReadFile = (dir: string, file: string) => string | undefined;

/** The file as it is now, opened for this. */
export function readOptional(dir: string, file: string): string | undefined {
  // Not `join`, which takes longer than the kernel does for the file.
  const path = `${dir}/${file}`;
  try {
    // Kernel files have size 0: readFileSync reads until the end, in as many pieces as seq_file gives.
    return readFileSync(path, 'utf8');
  } catch (e) {
    // Unsupported: pressure files on a kernel booted with psi=0.
    if (isGone(e) || isUnsupported(e)) return undefined;
    throw wrap('read', path, e);
  }
}

/**
 * Writes a cgroup file in one write(2), without the O_CREAT and O_TRUNC of writeFile, which cgroupfs
 * answers with a misleading EACCES when the file does not exist.
 */
export async function write(dir: string, file: string, value: string): Promise<void> {
  const path = join(dir, file);
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, constants.O_WRONLY);
    await handle.write(value);
  } catch (e) {
    throw wrap(`write "${value}" to`, path, e);
  } finally {
    await handle?.close();
  }
}

/** Like {@link write}; false when the file or its cgroup does not exist, or goes meanwhile. */
export async function writeOptional(dir: string, file: string, value: string): Promise<boolean> {
  try {
    await write(dir, file, value);
    return true;
  } catch (e) {
    if (isGone(e)) return false;
    throw e;
  }
}
