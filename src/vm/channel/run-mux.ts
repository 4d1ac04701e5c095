import type { Duplex } from 'node:stream';
import { messageOf } from '../../errors.ts';
import { Mux, type MuxHandlers } from '../protocol/mux.ts';

/**
 * Runs the protocol over a byte stream. When that ends or breaks, or the other side breaks the protocol, the
 * stream is destroyed, all of the protocol's streams are aborted, and `ended` is told the reason, once.
 */
export function runMux(transport: Duplex, handlers: MuxHandlers, ended: (reason: string) => void): Mux {
  const mux = new Mux((bytes) => transport.write(bytes), handlers);
  let over = false;
  const end = (reason: string) => {
    if (over) return;
    over = true;
    transport.destroy();
    mux.close(reason);
    ended(reason);
  };
  transport.on('drain', () => mux.drained());
  transport.on('error', (e) => end(e.message));
  transport.on('end', () => end('the connection has ended'));
  transport.on('close', () => end('the connection was closed'));
  transport.on('data', (chunk: Uint8Array) => {
    try {
      mux.receive(chunk);
    } catch (e: unknown) {
      end(messageOf(e));
    }
  });
  // A connection whose head somebody else has read was paused then, and a listener alone does not resume it.
  transport.resume();
  return mux;
}
