/**
 * Both ends of a machine's vsock, the agent's and the host's, against each other over the kernel's loopback. Prints what
 * came of it.
 */

import { closeSync, readdirSync, readlinkSync, writeSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { acceptVsock, listenVsock, takeGuestAddress } from '../../../src/sys/vsock.ts';
import { PortStream } from '../../../src/vm/agent/port.ts';
import { connectGuestPort } from '../../../src/vm/hypervisor/vsock.ts';

const LOOPBACK = 1;
const PORT = 1024;
const SIZE = 300_000;
const target = { cid: LOOPBACK, port: PORT };

/** Descriptors of epoll, of which each open end has one. */
const polling = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('eventpoll');
    } catch {
      return false;
    }
  }).length;

const before = polling();
const nobody = await connectGuestPort(target, AbortSignal.timeout(500)).catch((e: Error) => e.name);
const connecting = connectGuestPort(target, AbortSignal.timeout(60_000));
await delay(50);
const listener = listenVsock(PORT);
const agent = new PortStream(await acceptVsock(listener, LOOPBACK));
const host = await connecting;
host.write(Buffer.alloc(SIZE, 'h'));
agent.write(Buffer.alloc(SIZE, 'g'));
// What stops to read a stream destroys it.
const read = async (stream: typeof host): Promise<number> => {
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes === SIZE) break;
  }
  return bytes;
};
const bytes = await Promise.all([read(host), read(agent)]);
const [one, two] = [takeGuestAddress(), takeGuestAddress()];
const addresses = one.cid !== two.cid && Math.min(one.cid, two.cid) > 2;
closeSync(one.fd);
closeSync(two.fd);
// Waits for ever, on a thread that would keep this process from ending.
void acceptVsock(listener, LOOPBACK + 1);
const stranger = await connectGuestPort(target, AbortSignal.timeout(60_000));
const refused = (await buffer(stranger)).length === 0;
stranger.destroy();
while (polling() > before) await delay(10);
writeSync(1, JSON.stringify({ nobody, bytes, refused, addresses }));
process.kill(process.pid, 'SIGKILL');
