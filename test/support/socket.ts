import type { ChildProcess } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Waits until something accepts connections at a daemon's unix socket. A gRPC client must not be what
 * asks: after a refusal it waits a second before it tries again.
 *
 * @throws Error when the daemon has ended, or after `timeoutMs`
 */
export async function accepting(socket: string, daemon: ChildProcess, timeoutMs: number): Promise<void> {
  for (const since = performance.now(); performance.now() - since < timeoutMs; await delay(3)) {
    if (daemon.exitCode !== null || daemon.signalCode !== null) {
      throw new Error(`the daemon ended: ${daemon.exitCode ?? daemon.signalCode}`);
    }
    if (await accepts(socket)) return;
  }
  throw new Error(`nothing listens at ${socket} after ${timeoutMs} ms`);
}

function accepts(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.once('connect', () => {
      connection.destroy();
      resolve(true);
    });
    connection.once('error', () => resolve(false));
  });
}
