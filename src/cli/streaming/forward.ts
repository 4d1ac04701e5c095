import { createServer, type Server, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { during } from '../../errors.ts';
import type { SpdyConnection } from '../../streaming/spdy/connection.ts';
import { UsageError } from '../errors.ts';

/** A local port and the pod's port that it leads to. */
export interface PortPair {
  /** 0 picks a free one. */
  local: number;
  remote: number;
}

/** `8080:80`, `80` (the same on both sides) or `:80` (any free one). @throws UsageError */
export function parsePortPair(word: string): PortPair {
  const [, local = '', colon = '', remote = ''] = /^(\d{0,5})(:?)(\d{0,5})$/.exec(word) ?? [];
  const pair =
    colon === ''
      ? { local: Number(local), remote: Number(local) }
      : { local: Number(local || 0), remote: Number(remote) };
  if (pair.remote < 1 || pair.remote > 0xffff || pair.local > 0xffff) {
    throw new UsageError(`${word}: must be LOCAL:REMOTE, REMOTE or :REMOTE, with ports from 1 to 65535`);
  }
  return pair;
}

/** Listens on a local port, and forwards each connection over the session. @throws BerthError when it cannot */
export async function listenAndForward(
  connection: SpdyConnection,
  { local, remote }: PortPair,
  address: string,
  onError: (message: string) => void,
): Promise<Server> {
  let requests = 0;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const id = `${remote}-${++requests}`;
    forward(connection, socket, remote, id).then(
      (error) => error !== '' && onError(error),
      () => socket.destroy(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (e) => reject(during(`cannot listen on ${address} port ${local}`, e)));
    server.listen(local, address, resolve);
  });
  return server;
}

/** @returns what the server says that went wrong, or nothing */
async function forward(
  connection: SpdyConnection,
  socket: Socket,
  port: number,
  id: string,
): Promise<string> {
  const open = (streamtype: string) =>
    connection.open(new Map(Object.entries({ streamtype, port: String(port), requestid: id })));
  socket.on('error', () => {});
  const error = open('error');
  error.end();
  const data = open('data');
  socket.pipe(data);
  data.pipe(socket);
  data.once('close', () => (data.readableEnded ? socket.destroySoon() : socket.resetAndDestroy()));
  socket.once('close', () => {
    if (!data.readableEnded || !socket.readableEnded) data.destroy();
  });
  return text(error);
}
