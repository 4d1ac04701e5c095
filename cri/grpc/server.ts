import { createServer, type Server, type Socket } from 'node:net';
import type { Method } from '../../proto/codec.ts';
import { BerthError } from '../../src/errors.ts';
import { Call, refuse } from './call.ts';
import { encodeHeaders } from './hpack/encoder.ts';
import type { HeaderField } from './hpack/static-table.ts';
import { Connection } from './http2/connection.ts';
import { ErrorCode } from './http2/errors.ts';
import type { Stream, StreamListener } from './http2/stream.ts';
import { Malformed, NotGrpc, readHeaders } from './request.ts';
import type { Route, Rpc } from './rpc.ts';

/**
 * A gRPC server on a unix socket ("gRPC over HTTP/2"): messages as they are, neither compression nor metadata, whose
 * only users would be handlers that look at it. PING is answered and not sent: the end of a peer on the same
 * machine is told by its socket.
 */
export class GrpcServer {
  readonly #routes = new Map<string, Route>();
  readonly #connections = new Set<Connection>();
  readonly #server: Server;
  #closing: Promise<void> | undefined;

  constructor() {
    this.#server = createServer((socket) => this.#connect(socket));
  }

  /** Serves a service; each of its methods must have its function. */
  addService(methods: Readonly<Record<string, Method>>, rpcs: Readonly<Record<string, Rpc>>): void {
    for (const [name, method] of Object.entries(methods)) {
      const rpc = rpcs[name];
      if (rpc === undefined) throw new Error(`nobody serves ${method.path}`);
      this.#routes.set(method.path, { method, rpc });
    }
  }

  /** @param path of the socket, which must not be there yet */
  async listen(path: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once('error', reject);
    this.#server.listen(path, resolve);
    await promise;
    this.#server.off('error', reject);
    // One connection that could not be taken, as for want of descriptors, is no end of the server.
    this.#server.on('error', () => {});
  }

  /**
   * Takes no more calls and resolves when those in flight have ended, or were ended after `graceMs`. Node removes
   * the socket. Repeatable.
   */
  close(graceMs: number): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const connection of [...this.#connections]) connection.close();
    const force = setTimeout(() => {
      for (const connection of [...this.#connections]) connection.destroy();
    }, graceMs);
    await promise;
    clearTimeout(force);
  }

  #connect(socket: Socket): void {
    const connection = new Connection(socket, (stream, headers) => this.#accept(stream, headers));
    this.#connections.add(connection);
    socket.on('close', () => this.#connections.delete(connection));
  }

  #accept(stream: Stream, fields: readonly HeaderField[]): StreamListener | undefined {
    try {
      const { path, timeoutMs } = readHeaders(fields);
      const route = this.#routes.get(path);
      if (route === undefined) throw new BerthError('unimplemented', `unknown method ${path}`);
      return new Call(stream, route, timeoutMs);
    } catch (e: unknown) {
      if (e instanceof Malformed) stream.reset(ErrorCode.PROTOCOL_ERROR);
      else if (e instanceof NotGrpc)
        stream.sendHeaders(encodeHeaders([[':status', String(e.httpStatus)]]), true);
      else refuse(stream, e);
      return undefined;
    }
  }
}
