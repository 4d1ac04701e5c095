import { closeSync } from 'node:fs';
import { helperMark } from '../../sys/helpers.ts';
import { spawnChild } from '../../sys/spawn.ts';
import { openReader, type StdioPaths } from './fifos.ts';

/**
 * Starts a process that does nothing but hold the reading ends of a container's output FIFOs open, so that nothing
 * is lost while berthd is away: without a reader the kernel drops what is in a FIFO when its last writer leaves, and
 * a shim that writes may be ended by SIGPIPE. It holds no writing end, so the end of output can still be seen.
 *
 * @param pause the program that holds sandboxes, called with `-P`: a quarter of a megabyte of memory of its own
 * @returns its pid; it lives on when berthd ends
 */
export function startKeeper(pause: string, id: string, { stdout, stderr }: StdioPaths): number {
  const fds: number[] = [];
  try {
    for (const path of [stdout, stderr]) if (path !== undefined) fds.push(openReader(path));
    const child = spawnChild(pause, ['-P'], {
      env: helperMark(id),
      cwd: '/',
      // As its own output, which it does not use: catatonit closes all others.
      stdio: ['ignore', ...fds],
    });
    return child.pid;
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}
