import { EventEmitter } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import {
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  type CallOptions,
  clientStream,
  serverStream,
  unary,
  unimplemented,
  unimplementedStream,
} from '../../../cri/unary.ts';
import { BerthError, invalid } from '../../../src/errors.ts';
import type { Logger } from '../../../src/log.ts';

/** What grpc-js gives a handler, with a deadline and the event of a caller who left. */
class Call extends EventEmitter {
  readonly request: unknown;
  readonly written: unknown[] = [];
  cancelled = false;
  /** Whether write() says that the client keeps up. */
  keepsUp = true;
  ended = false;
  error: unknown;
  readonly #deadline: Date | number;

  constructor(request: unknown, deadline: Date | number = Number.POSITIVE_INFINITY) {
    super();
    this.request = request;
    this.#deadline = deadline;
    // grpc-js turns this event into the stream's status.
    this.on('error', (e: unknown) => {
      this.error = e;
    });
  }
  getDeadline() {
    return this.#deadline;
  }
  write(message: unknown): boolean {
    this.written.push(message);
    return this.keepsUp;
  }
  end() {
    this.ended = true;
  }
}

/** A logger that keeps level, fields and message of each line. */
function recorder() {
  const lines: [string, Record<string, unknown>, string][] = [];
  const at = (level: string) => (fields: Record<string, unknown>, message: string) =>
    void lines.push([level, fields, message]);
  const log = { debug: at('debug'), info: at('info'), warn: at('warn') } as unknown as Logger;
  return { lines, log };
}

const { lines, log } = recorder();
const ready = Promise.resolve();

beforeEach(() => {
  lines.length = 0;
});
afterEach(() => {
  vi.useRealTimers();
});

/** Calls a wrapped handler. @returns a promise of the error or answer that the caller gets */
function ask<O>(
  handler: (request: string, signal: AbortSignal) => Promise<O> | O,
  {
    call = new Call('r'),
    options = {},
    until = ready,
  }: { call?: Call; options?: CallOptions; until?: Promise<void> } = {},
): Promise<{ error: unknown; response: unknown }> {
  return new Promise((resolve) => {
    const callback: sendUnaryData<O> = (error, response) => resolve({ error, response });
    unary(
      'Some',
      { log, ready: until },
      handler,
      options,
    )(call as unknown as ServerUnaryCall<string, O>, callback);
  });
}

describe('unary', () => {
  it('answers with what the handler returns or resolves to', async () => {
    expect(await ask((request) => `${request}!`)).toEqual({ error: null, response: 'r!' });
    expect(await ask(async (request) => `${request}?`)).toEqual({ error: null, response: 'r?' });
  });

  it.each<[string, () => Promise<never>]>([
    ['rejects', () => Promise.reject(invalid('config', 'is required'))],
    [
      'throws',
      () => {
        throw invalid('config', 'is required');
      },
    ],
  ])('answers with the kind’s code when the handler %s', async (_how, handler) => {
    const { error, response } = await ask(handler);
    expect(error).toEqual({ code: status.INVALID_ARGUMENT, details: 'config: is required' });
    expect(response).toBeUndefined();
  });

  it('answers at the deadline, tells the handler, and lets its work go on', async () => {
    const work = Promise.withResolvers<string>();
    let seen: AbortSignal | undefined;
    const { error } = await ask(
      (_request, signal) => {
        seen = signal;
        return work.promise;
      },
      { call: new Call('r', new Date(Date.now() + 20)) },
    );
    expect(error).toEqual({ code: status.DEADLINE_EXCEEDED, details: "the caller's deadline has passed" });
    expect(seen?.aborted).toBe(true);
    expect(seen?.reason).toMatchObject({ kind: 'deadline' });
    // Must not become an unhandled rejection, which would end the daemon.
    work.reject(new Error('late'));
    await setImmediate();
  });

  it('answers when the caller leaves, and tells the handler', async () => {
    const call = new Call('r');
    const answer = ask(
      (_request, signal) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
          call.emit('cancelled');
        }),
      { call },
    );
    expect((await answer).error).toEqual({ code: status.CANCELLED, details: 'the caller has gone' });
  });

  it.each([
    ['none', Number.POSITIVE_INFINITY],
    // Node would fire such a timer after a millisecond.
    ['one of a month', new Date(Date.now() + 31 * 86_400_000)],
  ])('sets no timer for a deadline of %s', async (_name, deadline) => {
    vi.useFakeTimers();
    let signal: AbortSignal | undefined;
    const work = Promise.withResolvers<string>();
    const answer = ask(
      (_r, s) => {
        signal = s;
        return work.promise;
      },
      { call: new Call('r', deadline) },
    );
    await vi.advanceTimersByTimeAsync(1_000);
    expect(vi.getTimerCount()).toBe(0);
    expect(signal?.aborted).toBe(false);
    work.resolve('done');
    expect((await answer).response).toBe('done');
  });

  it('leaves no timer behind', async () => {
    vi.useFakeTimers();
    await ask(() => 'x', { call: new Call('r', new Date(Date.now() + 60_000)) });
    expect(vi.getTimerCount()).toBe(0);
  });

  it('waits for recovery, but early calls do not', async () => {
    const recovered = Promise.withResolvers<void>();
    const order: string[] = [];
    const late = ask(() => order.push('late'), { until: recovered.promise });
    await ask(() => order.push('early'), { until: recovered.promise, options: { early: true } });
    await setImmediate();
    expect(order).toEqual(['early']);
    recovered.resolve();
    await late;
    expect(order).toEqual(['early', 'late']);
  });

  it('does not begin a call whose caller left while it waited for recovery', async () => {
    const recovered = Promise.withResolvers<void>();
    const handler = vi.fn(() => 'x');
    const call = new Call('r');
    const answer = ask(handler, { call, until: recovered.promise });
    call.emit('cancelled');
    expect((await answer).error).toMatchObject({ code: status.CANCELLED });
    recovered.resolve();
    await setImmediate();
    expect(handler).not.toHaveBeenCalled();
  });

  it.each<[string, CallOptions, boolean, string, string]>([
    ['a change', {}, true, 'info', 'answered'],
    ['a refused change', {}, false, 'warn', 'refused or failed'],
    ['a read', { quiet: true }, true, 'debug', 'answered'],
    ['a refused read', { quiet: true }, false, 'debug', 'refused or failed'],
  ])('logs %s once, with its duration', async (_name, options, ok, level, message) => {
    await ask(
      () => {
        if (!ok) throw new BerthError('notFound', 'x not found');
      },
      { options },
    );
    expect(lines).toEqual([
      [
        level,
        {
          rpc: 'Some',
          tookMs: expect.any(Number),
          ...(ok ? {} : { kind: 'notFound', reason: 'x not found' }),
        },
        message,
      ],
    ]);
  });

  it('says by name what is not implemented', () => {
    const callback = vi.fn();
    unimplemented('PodSandboxStats')({} as ServerUnaryCall<unknown, never>, callback);
    expect(callback).toHaveBeenCalledExactlyOnceWith({
      code: status.UNIMPLEMENTED,
      details: 'PodSandboxStats is not implemented by berth yet',
    });
    const call = new Call('r');
    unimplementedStream('GetEvents')(call as unknown as ServerWritableStream<unknown, never>);
    expect(call.error).toMatchObject({ code: status.UNIMPLEMENTED });
  });
});

describe('serverStream', () => {
  const open = (
    call: Call,
    handler: (request: unknown, send: (m: unknown) => Promise<void>, signal: AbortSignal) => Promise<void>,
  ) =>
    serverStream('Some', { log, ready }, handler)(call as unknown as ServerWritableStream<unknown, unknown>);

  it('sends in order and ends', async () => {
    const call = new Call('r');
    open(call, async (request, send) => {
      await send(`${request}1`);
      await send(`${request}2`);
    });
    await vi.waitFor(() => expect(call.ended).toBe(true));
    expect(call.written).toEqual(['r1', 'r2']);
    expect(call.error).toBeUndefined();
  });

  it('waits for a client that does not keep up', async () => {
    const call = new Call('r');
    call.keepsUp = false;
    open(call, async (_request, send) => {
      await send(1);
      await send(2);
    });
    await setImmediate();
    expect(call.written).toEqual([1]);
    call.emit('drain');
    await vi.waitFor(() => expect(call.written).toEqual([1, 2]));
    expect(call.ended).toBe(false);
  });

  it('ends with the kind’s code, which a client that left gets out of a waiting send', async () => {
    const call = new Call('r');
    call.keepsUp = false;
    open(call, async (_request, send) => send(1));
    await setImmediate();
    call.emit('cancelled');
    await vi.waitFor(() => expect(call.error).toMatchObject({ code: status.CANCELLED }));
    expect(call.ended).toBe(false);
  });

  it('sends nothing to a client that left', async () => {
    const call = new Call('r');
    let sent: Promise<void> | undefined;
    open(call, async (_request, send, signal) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      sent = send(1);
      await sent;
    });
    await setImmediate();
    call.emit('cancelled');
    await vi.waitFor(() => expect(sent).toBeDefined());
    await expect(sent).rejects.toMatchObject({ kind: 'cancelled' });
    expect(call.written).toEqual([]);
  });
});

describe('clientStream', () => {
  it('hands the messages over and answers once', async () => {
    const call = Object.assign(new Call('r'), {
      async *[Symbol.asyncIterator]() {
        yield* [1, 2, 3];
      },
    });
    const answer = new Promise((resolve) => {
      clientStream<number, number>('Some', { log, ready }, async (requests) => {
        let sum = 0;
        for await (const n of requests) sum += n;
        return sum;
      })(call as unknown as ServerReadableStream<number, number>, (error, response) =>
        resolve({ error, response }),
      );
    });
    expect(await answer).toEqual({ error: null, response: 6 });
  });
});
