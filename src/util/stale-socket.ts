import { rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { BerthError, isErrno } from '../errors.ts';

/**
 * Makes room for a socket of one's own: one that nobody answers is left from a daemon that was killed, and is
 * removed. Nothing else is.
 *
 * @param key of the configuration, for errors
 * @throws BerthError precondition when something else is there, or somebody answers
 */
export async function removeStaleSocket(path: string, key: string): Promise<void> {
  const there = await stat(path).catch((e: unknown) => {
    if (!isErrno(e, 'ENOENT')) throw e;
  });
  if (there === undefined) return;
  if (!there.isSocket()) {
    throw new BerthError('precondition', `${key}: ${path} is there and no socket; choose another path`);
  }
  const alive = await new Promise<boolean>((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (e) => (isErrno(e, 'ECONNREFUSED', 'ENOENT') ? resolve(false) : reject(e)));
  });
  if (alive) {
    throw new BerthError(
      'precondition',
      `${key}: another daemon answers on ${path}; stop it or choose another socket`,
    );
  }
  await rm(path, { force: true });
}
