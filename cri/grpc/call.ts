import { BerthError, messageOf } from '../../src/errors.ts';
import { MAX_TIMER_MS } from '../../src/util/abort.ts';
import { toStatus } from '../status.ts';
import { Code } from './codes.ts';
import { encodeHeaders } from './hpack/encoder.ts';
import type { HeaderField } from './hpack/static-table.ts';
import type { Stream, StreamListener } from './http2/stream.ts';
import { MessageReader, messagePrefix } from './message-reader.ts';
import type { Route, ServerCall } from './rpc.ts';
import { encodeStatusMessage } from './status-header.ts';

const RESPONSE: readonly HeaderField[] = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
  // What a client that compressed must be told with UNIMPLEMENTED (gRPC's "Compression").
  ['grpc-accept-encoding', 'identity'],
];
const RESPONSE_HEADERS = encodeHeaders(RESPONSE);
const OK_TRAILERS = encodeHeaders([['grpc-status', String(Code.OK)]]);

/** Ends a stream with a status before anything was answered ("Trailers-Only"). */
export function refuse(stream: Stream, e: unknown): void {
  stream.sendHeaders(encodeHeaders([...RESPONSE, ...statusFields(e)]), true);
}

function statusFields(e: unknown): HeaderField[] {
  const { code, details } = toStatus(e);
  return [
    ['grpc-status', String(code)],
    ['grpc-message', encodeStatusMessage(details)],
  ];
}

/** One gRPC call on one HTTP/2 stream: from its headers to its status. */
export class Call implements StreamListener, ServerCall<never, unknown> {
  readonly #stream: Stream;
  readonly #route: Route;
  readonly #abort = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #reader = new MessageReader();
  /** Complete messages that nobody has taken. */
  #messages: Buffer[] = [];
  /** Bytes of them, which the client has not been told of as taken. */
  #held = 0;
  #isComplete = false;
  #wake: (() => void) | undefined;
  #hasHeaders = false;

  /** @param timeoutMs until the caller's deadline */
  constructor(stream: Stream, route: Route, timeoutMs: number | undefined) {
    this.#stream = stream;
    this.#route = route;
    // Node fires longer timers at once; nobody waits for a month.
    if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS) {
      // Not made ahead: an error costs more than the timer.
      this.#timer = setTimeout(() => this.#end(passed()), timeoutMs);
    }
    void this.#serve();
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  async request(): Promise<never> {
    while (!this.#isComplete) await this.#more();
    const message = this.#messages[0];
    if (message === undefined) throw wrongCount('no request');
    return this.#decode(message);
  }

  async *requests(): AsyncGenerator<never> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) {
        yield this.#decode(message);
      } else {
        this.#free();
        if (this.#isComplete) return;
        await this.#more();
      }
    }
  }

  sendHeaders(): void {
    if (this.#hasHeaders) return;
    this.#hasHeaders = true;
    this.#stream.sendHeaders(RESPONSE_HEADERS);
  }

  async send(message: unknown): Promise<void> {
    const bytes = Buffer.isBuffer(message)
      ? message
      : this.#route.method.responseSerialize(message as object);
    const prefix = messagePrefix(bytes.length);
    this.sendHeaders();
    await this.#stream.sendData(prefix, bytes);
  }

  data(bytes: Buffer): void {
    this.#held += bytes.length;
    const { requestStream } = this.#route.method;
    try {
      this.#messages.push(...this.#reader.push(bytes));
      if (!requestStream && this.#messages.length > 1) throw wrongCount('more than one request');
    } catch (e: unknown) {
      this.#end(e);
    }
    // A message that is larger than the window would never be complete otherwise.
    if (this.#messages.length === 0) this.#free();
    if (requestStream) this.#wake?.();
  }

  ended(): void {
    this.#isComplete = true;
    if (this.#reader.isWithin) this.#end(new BerthError('internal', 'the request ends within a message'));
    else this.#wake?.();
  }

  gone(): void {
    this.#end(new BerthError('cancelled', 'the caller has gone'));
  }

  /** Ends the call before it has an answer; the first reason counts. */
  #end(reason: unknown): void {
    this.#abort.abort(reason);
    this.#wake?.();
  }

  #free(): void {
    this.#stream.free(this.#held);
    this.#held = 0;
  }

  #decode(message: Buffer): never {
    try {
      // The message is of the type that the route's function takes: both are of the same definition.
      return this.#route.method.requestDeserialize(message) as never;
    } catch (e: unknown) {
      throw new BerthError('internal', `the request is no ${this.#route.method.path}: ${messageOf(e)}`);
    }
  }

  /** Waits for bytes or their end. @throws the signal's reason */
  async #more(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    if (!this.signal.aborted) await promise;
    this.signal.throwIfAborted();
  }

  async #serve(): Promise<void> {
    try {
      await this.#route.rpc(this);
      this.sendHeaders();
      this.#stream.sendTrailers(OK_TRAILERS);
    } catch (e: unknown) {
      if (this.#hasHeaders) this.#stream.sendTrailers(encodeHeaders(statusFields(e)));
      else refuse(this.#stream, e);
    } finally {
      clearTimeout(this.#timer);
    }
  }
}

function passed(): BerthError {
  return new BerthError('deadline', "the caller's deadline has passed");
}

/** The code that gRPC's table of status codes gives to it. */
function wrongCount(what: string): BerthError {
  return new BerthError('unimplemented', `the call has ${what}`);
}
