import { BerthError, kindOf, messageOf } from '../src/errors.ts';
import type { Logger } from '../src/log.ts';
import type { RecoveryProgress } from '../src/recover.ts';
import { orAborted } from '../src/util/abort.ts';
import { Code, codeName } from './grpc/codes.ts';
import type { Rpc } from './grpc/rpc.ts';
import { toStatus } from './status.ts';

/** What every handler call is wrapped with. */
export interface CallContext {
  log: Logger;
  /** What calls wait for, unless they must answer while berthd recovers. */
  recovery: RecoveryProgress;
  /** Told of each call that has an end; what it answers is called then, with the code's name. */
  observe?: (name: string) => (code: string) => void;
}

export interface CallOptions {
  /** Before which the call is not begun; default: the end of the recovery. */
  waitsFor?: 'nothing' | 'records';
  /** A read that is asked every second: logged at debug only. */
  quiet?: boolean;
  /** A stream without an end: its headers are sent at once, to tell the client that it listens from now on. */
  endless?: boolean;
}

/**
 * Wraps a unary handler. The signal that it gets fires with the caller's cancel and deadline; the caller is
 * answered as soon as it does, while work that must not stop half-way goes on.
 */
export function unary<I, O>(
  name: string,
  context: CallContext,
  handler: (request: I, signal: AbortSignal) => Promise<O> | O,
  options: CallOptions = {},
): Rpc<I, O> {
  return async (call) => {
    const answer = await answered(name, context, call.signal, options, async (signal) =>
      handler(await call.request(), signal),
    );
    await call.send(answer);
  };
}

/** Wraps a handler that sends many messages; `send` resolves when the message is on its way to the client. */
export function serverStream<I, O>(
  name: string,
  context: CallContext,
  handler: (request: I, send: (message: O) => Promise<void>, signal: AbortSignal) => Promise<void>,
  options: CallOptions = {},
): Rpc<I, O> {
  return (call) =>
    answered(name, context, call.signal, options, async (signal) => {
      const send = async (message: O) => {
        signal.throwIfAborted();
        await orAborted(call.send(message), signal);
      };
      const work = handler(await call.request(), send, signal);
      if (options.endless === true) call.sendHeaders();
      await work;
    });
}

/** Wraps a handler that reads a stream of messages and answers once. */
export function clientStream<I, O>(
  name: string,
  context: CallContext,
  handler: (requests: AsyncIterable<I>, signal: AbortSignal) => Promise<O>,
): Rpc<I, O> {
  return async (call) => {
    const work = (signal: AbortSignal) => handler(call.requests(), signal);
    await call.send(await answered(name, context, call.signal, {}, work));
  };
}

/** Answers UNIMPLEMENTED by name; the kubelet falls back on that code alone. */
export function unimplemented(name: string): Rpc {
  return async () => {
    throw new BerthError('unimplemented', `${name} is not implemented by berth yet`);
  };
}

async function answered<O>(
  name: string,
  { log, recovery, observe }: CallContext,
  signal: AbortSignal,
  options: CallOptions,
  work: (signal: AbortSignal) => Promise<O>,
): Promise<O> {
  const began = performance.now();
  const observed = options.endless === true ? undefined : observe?.(name);
  const tookMs = () => Math.round((performance.now() - began) * 10) / 10;
  try {
    if (options.waitsFor !== 'nothing')
      await orAborted(options.waitsFor === 'records' ? recovery.known : recovery.done, signal);
    const response = await orAborted(work(signal), signal);
    observed?.(codeName(Code.OK));
    log[options.quiet === true ? 'debug' : 'info']({ rpc: name, tookMs: tookMs() }, 'answered');
    return response;
  } catch (e: unknown) {
    observed?.(codeName(toStatus(e).code));
    log[options.quiet === true ? 'debug' : 'warn'](
      { rpc: name, tookMs: tookMs(), kind: kindOf(e), reason: messageOf(e) },
      'refused or failed',
    );
    throw e;
  }
}
