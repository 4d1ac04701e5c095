import { closeSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { PolledStream } from '../../sys/polled-stream.ts';
import { Poller } from '../../sys/poller.ts';
import { connectVsock, takeGuestAddress, type VsockTarget } from '../../sys/vsock.ts';

/** Between two tries to reach an agent that does not listen yet, milliseconds. */
const CONNECT_POLL_MS = 20;

/** Whether a machine can be reached by vsock on this host. */
export function hasVhostVsock(): boolean {
  try {
    closeSync(takeGuestAddress().fd);
    return true;
  } catch {
    return false;
  }
}

/**
 * Connects to a port of a guest as soon as somebody listens there. What the kernel says until then depends on how far the
 * guest is, so nothing but time and the machine's end tell that nobody will.
 *
 * @throws the signal's reason
 */
export async function connectGuestPort(target: VsockTarget, signal: AbortSignal): Promise<Duplex> {
  const poller = new Poller();
  try {
    for (;;) {
      const fd = await connectVsock(poller, target, signal).catch(() => undefined);
      if (fd !== undefined) {
        const stream = new PolledStream(poller, fd);
        stream.once('close', () => void poller.close());
        return stream;
      }
      await delay(CONNECT_POLL_MS, undefined, { signal });
    }
  } catch (e: unknown) {
    await poller.close();
    signal.throwIfAborted();
    throw e;
  }
}
