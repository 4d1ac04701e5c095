import { closeSync, constants, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../../errors.ts';
import { mknod, S_IFIFO } from '../../sys/mknod.ts';

const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;

/** Paths of the FIFOs between a process and berthd; with a terminal there is no stderr. */
export interface StdioPaths {
  stdin?: string;
  stdout: string;
  stderr?: string;
}

/** Makes a process's FIFOs in a directory of their own; those that are there stay. @throws SyscallError */
export async function makeFifos(dir: string, wanted: { stdin: boolean; tty: boolean }): Promise<StdioPaths> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const paths = stdioPaths(dir, wanted);
  for (const path of Object.values(paths)) makeFifo(path);
  return paths;
}

/**
 * Where the FIFOs lie. stdout and stderr are there whether somebody reads them or not: shims take either all for
 * /dev/null or none.
 */
function stdioPaths(dir: string, { stdin, tty }: { stdin: boolean; tty: boolean }): StdioPaths {
  return {
    ...(stdin ? { stdin: join(dir, 'stdin') } : {}),
    stdout: join(dir, 'stdout'),
    ...(tty ? {} : { stderr: join(dir, 'stderr') }),
  };
}

/** One that is there stays. @throws SyscallError */
export function makeFifo(path: string): void {
  try {
    mknod(path, S_IFIFO | 0o600, 0);
  } catch (e: unknown) {
    if (!isErrno(e, 'EEXIST')) throw e;
  }
}

/**
 * The reading end, non-blocking, without waiting for a writer. It reads as ended when the last writer has gone,
 * but not before the first one came (fifo(7), poll(2): POLLHUP).
 */
export function openReader(path: string): number {
  return openSync(path, O_RDONLY | O_NONBLOCK);
}

/** The writing end, non-blocking. @throws Error ENXIO when nobody reads */
export function openWriter(path: string): number {
  return openSync(path, O_WRONLY | O_NONBLOCK);
}

/**
 * Lets a reader see that there is no writer, where it has been opened only after the last one had gone: the kernel
 * would tell it of a later one's leaving only.
 */
export function pokeReader(path: string): void {
  try {
    closeSync(openWriter(path));
  } catch (e: unknown) {
    if (!isErrno(e, 'ENXIO', 'ENOENT')) throw e;
  }
}
