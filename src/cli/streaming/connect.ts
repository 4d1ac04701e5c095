import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { BerthError, during } from '../../errors.ts';
import { SpdyConnection } from '../../streaming/spdy/connection.ts';

/** The subprotocol of exec and attach that tells how the command ended. */
export const COMMAND_PROTOCOL = 'v4.channel.k8s.io';
/** How long a server may take to answer, milliseconds. */
const ANSWER_MS = 30_000;

/**
 * Connects to the URL that Exec, Attach or PortForward answered, over SPDY/3.1: every CRI daemon serves it.
 *
 * @param protocol the subprotocol
 * @throws BerthError `unavailable` when nothing listens or the server refuses
 */
export async function connectSpdy(url: string, protocol: string): Promise<SpdyConnection> {
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  // A daemon's certificate is its own; the URL came over the daemon's socket.
  const sent = send(url, {
    method: 'POST',
    rejectUnauthorized: false,
    timeout: ANSWER_MS,
    headers: { Connection: 'Upgrade', Upgrade: 'SPDY/3.1', 'X-Stream-Protocol-Version': protocol },
  });
  const { promise, resolve, reject } = Promise.withResolvers<SpdyConnection>();
  sent.once('upgrade', (_response, socket: Socket, head) => {
    socket.setTimeout(0);
    socket.setNoDelay(true);
    if (head.length > 0) socket.unshift(head);
    resolve(new SpdyConnection(socket));
  });
  sent.once('response', (response) => {
    response.resume();
    reject(new BerthError('unavailable', `the streaming server answered ${response.statusCode}`));
  });
  sent.once('timeout', () =>
    sent.destroy(new BerthError('deadline', 'the streaming server does not answer')),
  );
  sent.once('error', (e) => reject(during('streaming server', e)));
  sent.end();
  return promise;
}
