import { rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import type { MethodDefinition } from '@grpc/proto-loader';
import type { Response } from '../../../proto/gen/ttrpc/Response.ts';
import type { ShimProtos } from '../../../proto/load-shim.ts';
import { BerthError } from '../../errors.ts';
import { encodeFrame, type Frame, FrameReader, REQUEST, RESPONSE } from './frame.ts';
import { statusOf } from './status.ts';

/** Calls of one connection that are being worked on; a client with more is not read until some are done. */
const MAX_ACTIVE = 64;
/** Answers in bytes that one client has not taken; more, and it is cut off. */
const MAX_UNREAD = 16 * 1024 * 1024;
const MAX_CONNECTIONS = 4096;

/** A method with its work: bytes in, bytes out. */
type Handler = (payload: Buffer) => Promise<Buffer>;

/** Joins a unary method's definition and its work. */
export function handle<I, O>(
  method: Pick<MethodDefinition<unknown, O, I, unknown>, 'requestDeserialize' | 'responseSerialize'>,
  work: (message: I) => Promise<O>,
): Handler {
  return async (payload) => {
    let message: I;
    try {
      message = method.requestDeserialize(payload);
    } catch (e: unknown) {
      throw new BerthError('invalid', 'the payload is no such message', { cause: e });
    }
    return method.responseSerialize(await work(message));
  };
}

/** Serves unary methods over ttrpc on a unix socket. */
export class TtrpcServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /**
   * @param path of the socket (mode 0600); a file that is there already is replaced
   * @param methods by their paths, `/package.Service/Method`
   * @throws Error of listen(2), such as EACCES
   */
  static async listen(
    path: string,
    protos: Pick<ShimProtos, 'request' | 'response'>,
    methods: Readonly<Record<string, Handler>>,
  ): Promise<TtrpcServer> {
    await rm(path, { force: true });
    const server = createServer();
    const serving = new TtrpcServer(server);
    server.maxConnections = MAX_CONNECTIONS;
    server.on('connection', (socket) => {
      serving.#sockets.add(socket);
      socket.once('close', () => serving.#sockets.delete(socket));
      serve(socket, protos, methods);
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject);
    const before = process.umask(0o177);
    try {
      // Bound before this returns, so that nobody else's file gets the mask.
      server.listen(path, resolve);
    } finally {
      process.umask(before);
    }
    await promise;
    return serving;
  }

  /** Takes no more calls and ends all connections. Repeatable. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

function serve(
  socket: Socket,
  protos: Pick<ShimProtos, 'request' | 'response'>,
  methods: Readonly<Record<string, Handler>>,
): void {
  const reader = new FrameReader();
  let active = 0;
  const answer = async (frame: Frame): Promise<void> => {
    active++;
    if (active >= MAX_ACTIVE) socket.pause();
    const response = await respond(frame, protos, methods);
    if (socket.writable) socket.write(response);
    if (socket.writableLength > MAX_UNREAD) socket.destroy();
    active--;
    if (active < MAX_ACTIVE) socket.resume();
  };
  // A client that goes in the middle of a call is no error of the server's.
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => {
    try {
      for (const frame of reader.push(chunk)) {
        // Other types are ignored for what later versions may bring.
        if (frame.type === REQUEST) void answer(frame);
      }
    } catch {
      socket.destroy();
    }
  });
}

async function respond(
  frame: Frame,
  { request, response }: Pick<ShimProtos, 'request' | 'response'>,
  methods: Readonly<Record<string, Handler>>,
): Promise<Buffer> {
  const encode = (answer: Response) =>
    encodeFrame({ streamId: frame.streamId, type: RESPONSE, flags: 0, data: response.serialize(answer) });
  try {
    if (frame.streamId % 2 !== 1) throw new BerthError('invalid', 'stream ids of a client must be odd');
    const { service, method, payload } = decode(request, frame.data);
    const path = `/${service}/${method}`;
    const handler = Object.hasOwn(methods, path) ? methods[path] : undefined;
    if (handler === undefined) throw new BerthError('unimplemented', 'no such method');
    return encode({ payload: await handler(payload) });
  } catch (e: unknown) {
    return encode({ status: statusOf(e) });
  }
}

function decode(request: ShimProtos['request'], data: Buffer) {
  try {
    return request.deserialize(data);
  } catch (e: unknown) {
    throw new BerthError('invalid', 'no ttrpc request', { cause: e });
  }
}
