import { connect, type Socket } from 'node:net';
import { BerthError, messageOf } from '../../errors.ts';
import type { MuxDuplex } from '../channel/mux-duplex.ts';

/** Joins a stream to a port of this machine's loopback. @throws BerthError `unavailable` when nothing listens there */
export async function dial(port: number, stream: MuxDuplex): Promise<void> {
  let socket: Socket;
  try {
    socket = await open(port, '127.0.0.1').catch(() => open(port, '::1'));
  } catch (e: unknown) {
    stream.destroy();
    throw new BerthError('unavailable', `nothing listens on port ${port}: ${messageOf(e)}`, { cause: e });
  }
  socket.on('error', () => stream.destroy());
  stream.on('error', () => socket.destroy());
  stream.on('close', () => socket.destroy());
  socket.pipe(stream);
  stream.pipe(socket);
}

function open(port: number, host: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host, allowHalfOpen: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}
