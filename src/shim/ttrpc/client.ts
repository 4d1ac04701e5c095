import { connect as connectSocket, type Socket } from 'node:net';
import type { MethodDefinition } from '@grpc/proto-loader';
import type { ShimProtos } from '../../../proto/load-shim.ts';
import { BerthError, during, messageOf } from '../../errors.ts';
import { MAX_TIMER_MS } from '../../util/abort.ts';
import { encodeFrame, type Frame, FrameReader, REQUEST, RESPONSE } from './frame.ts';
import { statusError } from './status.ts';

const NS_PER_MS = 1_000_000n;
/** Stream ids of clients are odd and only grow; at the last one the connection is used up. */
const MAX_STREAM_ID = 2 ** 32 - 1;
/** Calls that wait for their answers; more would mean that the server answers none. */
const MAX_CALLS = 4096;

/** How long a call may take. */
export interface CallOptions {
  /** Milliseconds; left out only for calls that wait for something to happen, such as Wait. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

interface Pending {
  settle(frame: Frame): void;
  fail(e: Error): void;
}

/**
 * A ttrpc client over one connection. The connection's end fails all calls at once, and every later one:
 * it means that the server has died, since nobody else closes it.
 */
export class TtrpcClient {
  readonly #socket: Socket;
  readonly #protos: Pick<ShimProtos, 'request' | 'response'>;
  readonly #pending = new Map<number, Pending>();
  readonly #reader = new FrameReader();
  readonly #closed = Promise.withResolvers<void>();
  #nextStream = 1;
  #problem: BerthError | undefined;

  private constructor(socket: Socket, protos: Pick<ShimProtos, 'request' | 'response'>) {
    this.#socket = socket;
    this.#protos = protos;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (e) => this.#end(e));
    socket.once('close', () => this.#end());
  }

  /**
   * Connects to a unix socket; a path that begins with a NUL byte is in the abstract namespace.
   *
   * @throws BerthError `unavailable` when nobody listens there; `deadline`
   */
  static async connect(
    path: string,
    protos: Pick<ShimProtos, 'request' | 'response'>,
    timeoutMs: number,
  ): Promise<TtrpcClient> {
    const socket = connectSocket({ path });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(
      () => reject(new BerthError('deadline', `${printable(path)}: no connection within ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.once('connect', resolve);
    socket.once('error', (e) =>
      reject(new BerthError('unavailable', `${printable(path)}: ${messageOf(e)}`, { cause: e })),
    );
    try {
      await promise;
      return new TtrpcClient(socket, protos);
    } catch (e: unknown) {
      socket.destroy();
      throw e;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Resolves when the connection has ended, by whomever. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get isClosed(): boolean {
    return this.#problem !== undefined;
  }

  /**
   * Calls a method, which is named by its definition's path (`/package.Service/Method`).
   *
   * @throws BerthError of the kind that the server's status means; `unavailable` when the connection has ended
   *   or ends first; `deadline`; the signal's reason
   */
  async call<I, O>(
    method: Pick<
      MethodDefinition<I, unknown, unknown, O>,
      'path' | 'requestSerialize' | 'responseDeserialize'
    >,
    message: I,
    options: CallOptions,
  ): Promise<O> {
    options.signal?.throwIfAborted();
    const [, service = '', name = ''] = method.path.split('/');
    try {
      const frame = await this.#exchange(
        this.#protos.request.serialize({
          service,
          method: name,
          payload: method.requestSerialize(message),
          ...(options.timeoutMs === undefined
            ? {}
            : { timeout_nano: String(BigInt(Math.ceil(options.timeoutMs)) * NS_PER_MS) }),
        }),
        name,
        options,
      );
      const { status, payload } = this.#protos.response.deserialize(frame.data);
      if (status !== null && status.code !== 0) throw statusError(status.code, status.message);
      return method.responseDeserialize(payload);
    } catch (e: unknown) {
      if (e === options.signal?.reason) throw e;
      throw during(name, e);
    }
  }

  /** Ends the connection; calls that wait fail. Repeatable. */
  close(): void {
    this.#socket.destroy();
  }

  async #exchange(data: Buffer, name: string, { timeoutMs, signal }: CallOptions): Promise<Frame> {
    if (this.#problem !== undefined) throw this.#problem;
    if (this.#pending.size >= MAX_CALLS) {
      throw new BerthError('exhausted', `${MAX_CALLS} calls wait for answers already`);
    }
    const streamId = this.#takeStreamId();
    const request = encodeFrame({ streamId, type: REQUEST, flags: 0, data });
    const { promise, resolve, reject } = Promise.withResolvers<Frame>();
    const abort = () => reject(signal?.reason);
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(
            () => reject(new BerthError('deadline', `no answer within ${timeoutMs / 1000} s`)),
            Math.min(timeoutMs, MAX_TIMER_MS),
          );
    this.#pending.set(streamId, { settle: resolve, fail: reject });
    signal?.addEventListener('abort', abort, { once: true });
    try {
      this.#socket.write(request);
      const frame = await promise;
      if (frame.type !== RESPONSE) {
        throw new BerthError('internal', `answered by a ttrpc message of type ${frame.type} to ${name}`);
      }
      return frame;
    } finally {
      // An answer that comes later is for nobody.
      this.#pending.delete(streamId);
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  #takeStreamId(): number {
    const id = this.#nextStream;
    if (id > MAX_STREAM_ID) throw new BerthError('exhausted', 'the connection has no stream ids left');
    this.#nextStream += 2;
    return id;
  }

  #receive(chunk: Buffer): void {
    try {
      for (const frame of this.#reader.push(chunk)) this.#pending.get(frame.streamId)?.settle(frame);
    } catch (e: unknown) {
      this.#end(e);
    }
  }

  #end(e?: unknown): void {
    if (this.#problem !== undefined) return;
    const why =
      e === undefined
        ? 'the connection to the shim has ended'
        : `the connection to the shim: ${messageOf(e)}`;
    this.#problem = new BerthError('unavailable', why, { cause: e });
    this.#socket.destroy();
    for (const call of this.#pending.values()) call.fail(this.#problem);
    this.#closed.resolve();
  }
}

/** An abstract address as people write it. */
function printable(path: string): string {
  return path.replace(/^\0/, '@');
}
