import { connect, type Socket } from 'node:net';
import { BerthError } from '../../../errors.ts';
import { orAborted } from '../../../util/abort.ts';

/** `OK <port of the host's side>`, bytes. */
const MAX_ANSWER = 64;
const NEWLINE = 10;

/**
 * Connects to a port of the guest through Firecracker's socket: a line says which, and a line answers when
 * somebody has accepted (Firecracker documentation, "Using the Firecracker Virtio-vsock Device").
 *
 * @throws BerthError `unavailable` when nobody listens in the guest or the machine is gone; the signal's reason
 */
export async function connectHybridVsock(path: string, port: number, signal: AbortSignal): Promise<Socket> {
  const socket = connect(path);
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const refuse = (why: string, cause?: Error): void =>
    reject(new BerthError('unavailable', `${path}: port ${port} of the guest: ${why}`, { cause }));
  let head = Buffer.alloc(0);
  const fail = (e: Error): void => refuse(e.message, e);
  const close = (): void => refuse('nobody listens');
  const answer = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf(NEWLINE);
    if (end < 0 && head.length <= MAX_ANSWER) return;
    socket.off('data', answer).off('error', fail).off('close', close).pause();
    const line = head.toString('latin1', 0, Math.max(end, 0));
    // What the guest has said already belongs to the stream.
    if (head.length > end + 1) socket.unshift(head.subarray(end + 1));
    if (/^OK \d+$/.test(line)) resolve(socket);
    else refuse(`answered ${JSON.stringify(line)}`);
  };
  socket.on('data', answer).once('error', fail).once('close', close);
  socket.write(`CONNECT ${port}\n`);
  try {
    return await orAborted(promise, signal);
  } catch (e: unknown) {
    socket.on('error', () => {}).destroy();
    throw e;
  }
}
