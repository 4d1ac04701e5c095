import type { Duplex } from 'node:stream';
import { SpdyConnection } from '../spdy/connection.ts';
import type { SpdyStream } from '../spdy/stream.ts';
import { endOutput } from './output.ts';
import { ResizeReader } from './resize.ts';
import type { OpenSession, Outcome, WantedStreams } from './session.ts';
import { statusJson, statusText } from './status.ts';

/**
 * The subprotocols of exec and attach over SPDY, best first. v1 is channel.k8s.io; v2 fixed how it ends, v3
 * added the resize stream, v4 the status in JSON.
 */
export const SPDY_PROTOCOLS = [
  'v4.channel.k8s.io',
  'v3.channel.k8s.io',
  'v2.channel.k8s.io',
  'channel.k8s.io',
];

const KINDS = ['error', 'stdin', 'stdout', 'stderr', 'resize'] as const;
type Kind = (typeof KINDS)[number];

/**
 * Waits until the client has opened a stream for each that was asked for, told apart by the header
 * `streamtype`.
 *
 * @throws Error when it has not within `timeoutMs`, or goes
 */
export async function openSpdySession(
  transport: Duplex,
  protocol: string,
  wanted: WantedStreams,
  timeoutMs: number,
): Promise<OpenSession> {
  const streams = new Map<Kind, SpdyStream>();
  const resizes = protocol === 'v4.channel.k8s.io' || protocol === 'v3.channel.k8s.io';
  const expected = KINDS.filter((kind) =>
    kind === 'error' ? true : kind === 'resize' ? wanted.tty && resizes : wanted[kind],
  );
  const complete = Promise.withResolvers<void>();
  const connection = new SpdyConnection(transport, (stream) => {
    const kind = KINDS.find((k) => k === stream.headers.get('streamtype'));
    if (kind === undefined || streams.has(kind)) return false;
    streams.set(kind, stream);
    if (expected.every((k) => streams.has(k))) complete.resolve();
    return true;
  });
  const timer = setTimeout(
    () => complete.reject(new Error('the client did not open its streams in time')),
    timeoutMs,
  );
  const over = () => complete.reject(new Error('the client went before it had opened its streams'));
  connection.closed.addEventListener('abort', over, { once: true });
  try {
    await complete.promise;
  } catch (e: unknown) {
    connection.destroy();
    throw e;
  } finally {
    clearTimeout(timer);
    connection.closed.removeEventListener('abort', over);
  }
  return sessionOf(connection, protocol, wanted, streams);
}

function sessionOf(
  connection: SpdyConnection,
  protocol: string,
  wanted: WantedStreams,
  streams: ReadonlyMap<Kind, SpdyStream>,
): OpenSession {
  const resize = new ResizeReader();
  const take = (kind: 'stdin' | 'stdout' | 'stderr') => {
    const stream = wanted[kind] ? streams.get(kind) : undefined;
    return stream === undefined ? {} : { [kind]: stream };
  };
  // What nobody reads would hold up the connection: clients may write where they should not.
  for (const [kind, stream] of streams) {
    if (kind === 'resize') resize.read(stream);
    else if (kind !== 'stdin' || !wanted.stdin) stream.resume();
  }
  const outputs = (['stdout', 'stderr', 'error'] as const).flatMap((kind) => streams.get(kind) ?? []);
  return {
    ...take('stdin'),
    ...take('stdout'),
    ...take('stderr'),
    onResize: (listener) => resize.listen(listener),
    gone: connection.closed,
    async finish(outcome: Outcome) {
      const status = protocol === 'v4.channel.k8s.io' ? statusJson(outcome) : statusText(outcome);
      if (status !== '') streams.get('error')?.write(status);
      await endOutput(outputs);
      connection.close();
    },
  };
}
