import type { Socket } from 'node:net';
import { type Duplex, finished, type Writable } from 'node:stream';
import { isErrno, messageOf } from '../../errors.ts';

/** Connects to a port of the pod's loopback. @throws when nothing listens there */
export type DialPort = (port: number) => Promise<Socket>;

/**
 * Joins one client's data stream with a new connection to the port, each direction ending by itself.
 *
 * Only that nothing answers is told on the error stream: kubectl ends its whole session for any text there,
 * and a connection that its peer resets is none of the others' business. Such a one is reset here too.
 *
 * @throws Error when the port cannot be connected to
 */
export async function forward(data: Duplex, error: Writable, port: number, dial: DialPort): Promise<void> {
  let socket: Socket;
  try {
    socket = await dial(port);
  } catch (e: unknown) {
    // The client waits for the end of both.
    error.end(`cannot connect to port ${port} of the pod: ${messageOf(e)}`);
    data.end();
    data.resume();
    throw e;
  }
  await join(data, socket);
  error.end();
}

/** Resolves when both are over. */
async function join(data: Duplex, socket: Socket): Promise<void> {
  // With half-open streams an end is passed on, and a reset is a close without an end.
  data.pipe(socket);
  socket.pipe(data);
  const over = Promise.withResolvers<void>();
  socket.on('error', () => {});
  socket.once('close', () => {
    over.resolve();
    if (!socket.readableEnded) data.destroy();
    // What the port said last is still on its way; after that nobody takes what the client says.
    else finished(data, { readable: false }, () => data.destroy());
  });
  data.once('close', () => {
    if (!data.readableEnded) abandon(socket);
    else if (!socket.readableEnded) socket.destroy();
  });
  if (data.destroyed) socket.destroy();
  await over.promise;
}

/** With a reset where there is such a thing: the way into a virtual machine is a unix socket. */
function abandon(socket: Socket): void {
  try {
    socket.resetAndDestroy();
  } catch (e: unknown) {
    if (!isErrno(e, 'ERR_INVALID_HANDLE_TYPE')) throw e;
    socket.destroy();
  }
}
