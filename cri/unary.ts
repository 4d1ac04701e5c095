import {
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerWritableStream,
  status,
} from '@grpc/grpc-js';
import { BerthError, kindOf, messageOf } from '../src/errors.ts';
import type { Logger } from '../src/log.ts';
import { orAborted } from '../src/util/abort.ts';
import { toStatus } from './status.ts';

/** What every handler call is wrapped with. */
export interface CallContext {
  log: Logger;
  /** Calls wait for it, except those that must answer while berthd recovers. */
  ready: Promise<void>;
  /** Told of each call that has an end; what it answers is called then, with the code's name. */
  observe?: (name: string) => (code: string) => void;
}

export interface CallOptions {
  /** Answered also while recovery runs. */
  early?: boolean;
  /** A read that is asked every second: logged at debug only. */
  quiet?: boolean;
  /** A stream without an end: its headers are sent at once, to tell the client that it listens from now on. */
  endless?: boolean;
}

interface Call {
  cancelled: boolean;
  getDeadline(): Date | number;
  on(event: 'cancelled', listener: () => void): unknown;
}

/**
 * Wraps a unary handler. grpc-js does not await handlers: without this, a rejection would end the process.
 * The caller's deadline and cancel become the signal that the handler gets; the caller is answered as soon
 * as the signal fires, while work that must not stop half-way goes on.
 */
export function unary<I, O>(
  name: string,
  context: CallContext,
  handler: (request: I, signal: AbortSignal) => Promise<O> | O,
  options: CallOptions = {},
): handleUnaryCall<I, O> {
  return (call, callback) => {
    void answer(name, context, call, options, async (signal) => handler(call.request, signal)).then(
      (response) => callback(null, response),
      (e: unknown) => callback(toStatus(e)),
    );
  };
}

/** Wraps a handler that sends many messages; `send` resolves when the client has taken it. */
export function serverStream<I, O>(
  name: string,
  context: CallContext,
  handler: (request: I, send: (message: O) => Promise<void>, signal: AbortSignal) => Promise<void>,
  options: CallOptions = {},
): handleServerStreamingCall<I, O> {
  return (call) => {
    void answer(name, context, call, options, (signal) => {
      const work = handler(call.request, (message) => write(call, message, signal), signal);
      if (options.endless === true) call.sendMetadata(new Metadata());
      return work;
    }).then(
      () => call.end(),
      (e: unknown) => fail(call, e),
    );
  };
}

/** Wraps a handler that reads a stream of messages and answers once. */
export function clientStream<I, O>(
  name: string,
  context: CallContext,
  handler: (requests: AsyncIterable<I>, signal: AbortSignal) => Promise<O>,
): handleClientStreamingCall<I, O> {
  return (call, callback) => {
    void answer(name, context, call, {}, (signal) => handler(call, signal)).then(
      (response) => callback(null, response),
      (e: unknown) => callback(toStatus(e)),
    );
  };
}

/** Answers UNIMPLEMENTED by name; the kubelet falls back on that code alone. */
export function unimplemented(name: string): handleUnaryCall<unknown, never> {
  return (_call, callback) => {
    callback(toStatus(new BerthError('unimplemented', `${name} is not implemented by berth yet`)));
  };
}

/** The same for an RPC that streams its answer. */
export function unimplementedStream(name: string): handleServerStreamingCall<unknown, never> {
  return (call) => {
    fail(call, new BerthError('unimplemented', `${name} is not implemented by berth yet`));
  };
}

/** The event, since grpc-js sends no status for a stream that is destroyed: the client would wait for ever. */
function fail(call: ServerWritableStream<unknown, unknown>, e: unknown): void {
  call.emit('error', Object.assign(new Error(messageOf(e)), toStatus(e)));
}

async function answer<O>(
  name: string,
  { log, ready, observe }: CallContext,
  call: Call,
  options: CallOptions,
  work: (signal: AbortSignal) => Promise<O>,
): Promise<O> {
  const began = performance.now();
  const observed = options.endless === true ? undefined : observe?.(name);
  const { signal, done } = callSignal(call);
  const tookMs = () => Math.round((performance.now() - began) * 10) / 10;
  try {
    if (options.early !== true) await orAborted(ready, signal);
    const response = await orAborted(work(signal), signal);
    observed?.(status[status.OK]);
    log[options.quiet === true ? 'debug' : 'info']({ rpc: name, tookMs: tookMs() }, 'answered');
    return response;
  } catch (e: unknown) {
    observed?.(status[toStatus(e).code]);
    log[options.quiet === true ? 'debug' : 'warn'](
      { rpc: name, tookMs: tookMs(), kind: kindOf(e), reason: messageOf(e) },
      'refused or failed',
    );
    throw e;
  } finally {
    done();
  }
}

/** A signal of the caller's cancel (an event only) and deadline. */
function callSignal(call: Call): { signal: AbortSignal; done: () => void } {
  const abort = new AbortController();
  call.on('cancelled', () => abort.abort(new BerthError('cancelled', 'the caller has gone')));
  const deadline = Number(call.getDeadline());
  const left = deadline - Date.now();
  const timer =
    Number.isFinite(left) && left < 2 ** 31
      ? setTimeout(() => abort.abort(new BerthError('deadline', "the caller's deadline has passed")), left)
      : undefined;
  return { signal: abort.signal, done: () => clearTimeout(timer) };
}

async function write<O>(
  call: ServerWritableStream<unknown, O>,
  message: O,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  if (call.write(message)) return;
  await orAborted(new Promise<void>((resolve) => call.once('drain', resolve)), signal);
}
