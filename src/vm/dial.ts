import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream';
import { BerthError, messageOf } from '../errors.ts';

/** What a client says first: the port; what it is answered: nothing, or why not. Then both are what the guest says. */
const MAX_LINE = 1024;

/**
 * Connects to a TCP port on a guest's loopback through its shim.
 *
 * @param path of the shim's socket for that
 * @throws BerthError `unavailable` when nothing listens; the signal's reason
 */
export async function connectGuest(path: string, port: number, signal: AbortSignal): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true });
  // Whoever uses it sees its end; nobody else need know why it broke.
  socket.on('error', () => {});
  try {
    await once(socket, 'connect', { signal });
    socket.write(`${port}\n`);
    const problem = await readLine(socket, signal);
    if (problem !== '') throw new BerthError('unavailable', problem);
    return socket;
  } catch (e: unknown) {
    socket.destroy();
    signal.throwIfAborted();
    throw e instanceof BerthError ? e : new BerthError('unavailable', messageOf(e), { cause: e });
  }
}

/**
 * Serves {@link connectGuest}.
 *
 * @param dial connects to a port in the guest
 */
export async function serveDial(path: string, dial: (port: number) => Promise<Duplex>): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    void join(socket, dial);
  });
  server.listen(path);
  await once(server, 'listening');
  return server;
}

async function join(socket: Socket, dial: (port: number) => Promise<Duplex>): Promise<void> {
  let guest: Duplex;
  try {
    guest = await dial(Number(await readLine(socket, AbortSignal.timeout(5_000))));
  } catch (e: unknown) {
    socket.end(
      `${messageOf(e)
        .replaceAll('\n', ' ')
        .slice(0, MAX_LINE - 1)}\n`,
    );
    return;
  }
  socket.write('\n');
  pipeline(socket, guest, () => {});
  pipeline(guest, socket, () => {});
}

/** Reads up to a newline and not a byte more. @throws BerthError `unavailable`; the signal's reason */
async function readLine(socket: Socket, signal: AbortSignal): Promise<string> {
  let line = '';
  for (;;) {
    const byte: Buffer | null = socket.read(1);
    if (byte === null) {
      if (socket.readableEnded || socket.destroyed)
        throw new BerthError('unavailable', 'the connection has ended');
      await Promise.race([
        once(socket, 'readable', { signal }),
        once(socket, 'end', { signal }),
        once(socket, 'close', { signal }),
      ]);
      continue;
    }
    if (byte[0] === 0x0a) return line;
    line += byte.toString('latin1');
    if (line.length > MAX_LINE) throw new BerthError('unavailable', 'the answer is too long');
  }
}
