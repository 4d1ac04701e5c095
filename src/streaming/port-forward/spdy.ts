import type { Duplex } from 'node:stream';
import { messageOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { SpdyConnection } from '../spdy/connection.ts';
import type { SpdyStream } from '../spdy/stream.ts';
import { type DialPort, forward } from './forward.ts';

/** The subprotocol of port forwarding, over SPDY and over SPDY in WebSocket. */
export const PORT_FORWARD_PROTOCOL = 'portforward.k8s.io';

/** The two streams of one forwarded connection, of which one may still be missing. */
interface Pair {
  port: number;
  data?: SpdyStream;
  error?: SpdyStream;
  timer: NodeJS.Timeout;
}

/**
 * Serves port forwarding on one connection: for each connection to a port the client opens a stream for
 * data and one for an error, which the header `requestid` pairs (old clients send none: their data stream
 * has the number after that of the error stream).
 */
export function servePortForward(transport: Duplex, dial: DialPort, pairMs: number, log: Logger): void {
  const pairs = new Map<string, Pair>();
  const connection = new SpdyConnection(transport, (stream) => {
    const asked = parseStream(stream);
    if (asked === undefined) return false;
    const pair = pairs.get(asked.id) ?? newPair(asked.id, asked.port);
    if (pair[asked.type] !== undefined || pair.port !== asked.port) return false;
    pair[asked.type] = stream;
    const { data, error } = pair;
    if (data === undefined || error === undefined) return true;
    clearTimeout(pair.timer);
    pairs.delete(asked.id);
    forward(data, error, asked.port, dial).catch((e: unknown) => {
      log.debug({ port: asked.port, reason: messageOf(e) }, 'a connection could not be forwarded');
    });
    return true;
  });
  connection.closed.addEventListener('abort', () => {
    for (const { timer } of pairs.values()) clearTimeout(timer);
  });

  function newPair(id: string, port: number): Pair {
    const timer = setTimeout(() => {
      const { data, error } = pair;
      pairs.delete(id);
      error?.end('the data stream was not opened in time');
      data?.destroy();
    }, pairMs);
    const pair: Pair = { port, timer };
    pairs.set(id, pair);
    return pair;
  }
}

function parseStream({ headers, id }: SpdyStream) {
  const type = headers.get('streamtype');
  const port = Number(headers.get('port'));
  if ((type !== 'data' && type !== 'error') || !Number.isInteger(port) || port < 1 || port > 0xffff)
    return undefined;
  const request = headers.get('requestid') || String(type === 'error' ? id : id - 2);
  return { type, port, id: request } as const;
}
