import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

const SPDY = 'SPDY/3.1';

/** What an HTTP request asks to become: undefined when nothing that is served here. */
export function upgradeOf({ headers }: IncomingMessage): 'websocket' | 'spdy' | undefined {
  const upgrade = headers.upgrade?.toLowerCase() ?? '';
  if (upgrade === 'websocket') return 'websocket';
  return upgrade.includes(SPDY.toLowerCase()) ? 'spdy' : undefined;
}

/**
 * Answers an upgrade to SPDY: with 101 and the first of the client's subprotocols that the server has too,
 * or with an error and the end of the connection.
 *
 * @param offered best first, for the client to see
 * @returns the subprotocol; undefined when it was refused
 */
export function acceptSpdy(
  request: IncomingMessage,
  socket: Duplex,
  offered: readonly string[],
): string | undefined {
  const asked = listOf(request.headers['x-stream-protocol-version']);
  if (asked.length === 0) {
    refuse(socket, 400, 'the header X-Stream-Protocol-Version names no protocol');
    return undefined;
  }
  const protocol = asked.find((name) => offered.includes(name));
  if (protocol === undefined) {
    const accepted = offered.map((name) => `X-Accepted-Stream-Protocol-Versions: ${name}`);
    refuse(socket, 403, `none of the protocols is known here; known are ${offered.join(', ')}`, accepted);
    return undefined;
  }
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\n' +
      `Connection: Upgrade\r\nUpgrade: ${SPDY}\r\nX-Stream-Protocol-Version: ${protocol}\r\n\r\n`,
  );
  return protocol;
}

/** Items of a header that may come several times, each with several items. */
export function listOf(header: string | string[] | undefined): string[] {
  return [header ?? []]
    .flat()
    .flatMap((value) => value.split(','))
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

const REASONS: Readonly<Record<number, string>> = { 400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found' };

/** Answers a request that is not upgraded, and closes its connection. */
export function refuse(socket: Duplex, status: number, message: string, headers: string[] = []): void {
  const body = `${message}\n`;
  const head = [
    `HTTP/1.1 ${status} ${REASONS[status]}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    ...headers,
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}
