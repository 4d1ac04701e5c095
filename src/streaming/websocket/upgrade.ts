import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { listOf, refuse } from '../negotiate.ts';
import { type DialPort, forward } from '../port-forward/forward.ts';
import { PORT_FORWARD_PROTOCOL } from '../port-forward/spdy.ts';
import { endOutput } from '../remote-command/output.ts';
import { ResizeReader } from '../remote-command/resize.ts';
import type { OpenSession, WantedStreams } from '../remote-command/session.ts';
import { statusJson, statusText } from '../remote-command/status.ts';
import { Channels } from './channels.ts';

/** Bytes; clients send at most some ten thousand at once. */
const MAX_MESSAGE = 1024 * 1024;
/** SPDY in WebSocket: the rest is the subprotocol of the SPDY connection. */
const TUNNEL = `SPDY/3.1+${PORT_FORWARD_PROTOCOL}`;

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;

/** Subprotocols of exec and attach. Clients that name none get the first kind of channels. */
const COMMAND_PROTOCOLS = new Map([
  ['v5.channel.k8s.io', { base64: false, closable: true, json: true }],
  ['v4.channel.k8s.io', { base64: false, closable: false, json: true }],
  ['v4.base64.channel.k8s.io', { base64: true, closable: false, json: true }],
  ['channel.k8s.io', { base64: false, closable: false, json: false }],
  ['base64.channel.k8s.io', { base64: true, closable: false, json: false }],
  ['', { base64: false, closable: false, json: false }],
]);

/** Subprotocols of port forwarding without SPDY: two channels for each port. */
const PORT_PROTOCOLS = new Map([
  ['v4.channel.k8s.io', { base64: false, closable: false }],
  ['v4.base64.channel.k8s.io', { base64: true, closable: false }],
  [PORT_FORWARD_PROTOCOL, { base64: false, closable: false }],
  ['', { base64: false, closable: false }],
]);

/** The library, which a start need not wait for. */
function websockets(): Promise<typeof import('ws')> {
  return import('ws');
}

/** An exec or attach session over WebSocket; undefined when it was refused. */
export async function openWebSocketSession(
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
  wanted: WantedStreams,
): Promise<OpenSession | undefined> {
  const accepted = await accept(request, socket, head, COMMAND_PROTOCOLS);
  if (accepted === undefined) return undefined;
  const channels = new Channels(accepted.socket, accepted.options);
  const resize = new ResizeReader();
  resize.read(channels.input(RESIZE));
  const stdin = wanted.stdin ? { stdin: channels.input(STDIN) } : {};
  const stdout = wanted.stdout ? { stdout: channels.output(STDOUT) } : {};
  const stderr = wanted.stderr ? { stderr: channels.output(STDERR) } : {};
  const error = channels.output(ERROR);
  // As other servers do: the client knows by it that it can begin.
  channels.send(wanted.stdout ? STDOUT : wanted.stderr ? STDERR : ERROR, Buffer.alloc(0));
  return {
    ...stdin,
    ...stdout,
    ...stderr,
    onResize: (listener) => resize.listen(listener),
    gone: channels.closed,
    async finish(outcome) {
      const status = accepted.options.json ? statusJson(outcome) : statusText(outcome);
      const before = [stdout.stdout, stderr.stderr].filter((output) => output !== undefined);
      await endOutput(before);
      if (status !== '') error.write(status);
      await endOutput([error]);
      channels.close();
    },
  };
}

/**
 * Accepts port forwarding over WebSocket.
 *
 * @returns the byte stream of a SPDY tunnel; undefined when the channels are served already, or refused
 */
export async function acceptPortForward(
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
  { ports, dial }: { ports: number[]; dial: DialPort },
): Promise<Duplex | undefined> {
  if (listOf(request.headers['sec-websocket-protocol']).includes(TUNNEL)) {
    const accepted = await accept(request, socket, head, new Map([[TUNNEL, {}]]));
    return accepted && (await websockets()).createWebSocketStream(accepted.socket);
  }
  const query = new URL(request.url ?? '', 'http://localhost').searchParams.getAll('port');
  const wanted = ports.length > 0 ? ports : query.flatMap((list) => list.split(',')).map(Number);
  const usable = wanted.length > 0 && wanted.length <= 64;
  if (!usable || !wanted.every((port) => Number.isInteger(port) && port > 0 && port <= 0xffff)) {
    refuse(socket, 400, 'without SPDY the ports (1 to 64 of them) are named with the request');
    return undefined;
  }
  const accepted = await accept(request, socket, head, PORT_PROTOCOLS);
  if (accepted !== undefined)
    await forwardChannels(new Channels(accepted.socket, accepted.options), wanted, dial);
  return undefined;
}

/** The i-th port has channel 2i for data and 2i+1 for an error; each begins with the port, little-endian. */
async function forwardChannels(channels: Channels, ports: number[], dial: DialPort): Promise<void> {
  await Promise.allSettled(
    ports.map(async (port, i) => {
      const number = Buffer.alloc(2);
      number.writeUInt16LE(port);
      const data = channels.duplex(2 * i);
      const error = channels.output(2 * i + 1);
      channels.send(2 * i, number);
      channels.send(2 * i + 1, number);
      await forward(data, error, port, dial);
    }),
  );
  channels.close();
}

/** Shakes hands with the first of the client's subprotocols that is known. */
async function accept<O>(
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
  protocols: ReadonlyMap<string, O>,
): Promise<{ socket: WebSocket; options: O } | undefined> {
  const asked = listOf(request.headers['sec-websocket-protocol']);
  const protocol = (asked.length === 0 ? [''] : asked).find((name) => protocols.has(name));
  const options = protocol === undefined ? undefined : protocols.get(protocol);
  if (options === undefined) {
    const known = [...protocols.keys()].filter((name) => name !== '').join(', ');
    refuse(socket, 403, `none of the subprotocols is known here; known are ${known}`);
    return undefined;
  }
  const { WebSocketServer } = await websockets();
  if (socket.destroyed) return undefined;
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: MAX_MESSAGE,
    perMessageDeflate: false,
  });
  // The library refuses names that are no HTTP tokens, as the tunnel's with its slash.
  delete request.headers['sec-websocket-protocol'];
  if (protocol !== '') server.on('headers', (headers) => headers.push(`Sec-WebSocket-Protocol: ${protocol}`));
  return new Promise((resolve) => {
    // A request that is no WebSocket handshake is answered and ended by the library.
    socket.once('close', () => resolve(undefined));
    server.handleUpgrade(request, socket, head, (webSocket) => resolve({ socket: webSocket, options }));
  });
}
