import { setImmediate } from 'node:timers/promises';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { type CallOptions, clientStream, serverStream, unary, unimplemented } from '../../../cri/unary.ts';
import { BerthError, invalid } from '../../../src/errors.ts';
import type { Logger } from '../../../src/log.ts';
import type { RecoveryProgress } from '../../../src/recover.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeCall } from './call.ts';

/** A logger that keeps level, fields and message of each line. */
function recorder() {
  const lines: [string, Record<string, unknown>, string][] = [];
  const at = (level: string) => (fields: Record<string, unknown>, message: string) =>
    void lines.push([level, fields, message]);
  const log = { debug: at('debug'), info: at('info'), warn: at('warn') } as unknown as Logger;
  return { lines, log };
}

const { lines, log } = recorder();
const over: RecoveryProgress = { known: Promise.resolve(), done: Promise.resolve() };

beforeEach(() => {
  lines.length = 0;
});

/** Calls a wrapped handler. @returns a promise of what the caller gets */
async function ask<O>(
  handler: (request: string, signal: AbortSignal) => Promise<O> | O,
  {
    call = new FakeCall('r'),
    options = {},
    recovery = over,
  }: { call?: FakeCall; options?: CallOptions; recovery?: RecoveryProgress } = {},
): Promise<{ error?: unknown; sent: unknown[] }> {
  const rpc = unary('Some', { log, recovery }, handler as (request: unknown) => O, options);
  try {
    await rpc(call);
    return { sent: call.sent };
  } catch (error: unknown) {
    return { error, sent: call.sent };
  }
}

describe('unary', () => {
  it('answers with what the handler returns or resolves to', async () => {
    expect(await ask((request) => `${request}!`)).toEqual({ sent: ['r!'] });
    expect(await ask(async (request) => `${request}?`)).toEqual({ sent: ['r?'] });
  });

  it.each<[string, () => Promise<never>]>([
    ['rejects', () => Promise.reject(invalid('config', 'is required'))],
    [
      'throws',
      () => {
        throw invalid('config', 'is required');
      },
    ],
  ])('fails with the handler’s error when it %s', async (_how, handler) => {
    const { error, sent } = await ask(handler);
    expect(error).toMatchObject({ kind: 'invalid', message: 'config: is required' });
    expect(sent).toEqual([]);
  });

  it('answers at the deadline, tells the handler, and lets its work go on', async () => {
    const work = Promise.withResolvers<string>();
    const call = new FakeCall('r');
    let seen: AbortSignal | undefined;
    const answer = ask(
      (_request, signal) => {
        seen = signal;
        call.pass();
        return work.promise;
      },
      { call },
    );
    expect((await answer).error).toMatchObject({ kind: 'deadline' });
    expect(seen?.aborted).toBe(true);
    // Must not become an unhandled rejection, which would end the daemon.
    work.reject(new Error('late'));
    await setImmediate();
  });

  it('answers when the caller leaves, and tells the handler', async () => {
    const call = new FakeCall('r');
    const answer = ask(
      (_request, signal) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
          call.cancel();
        }),
      { call },
    );
    expect((await answer).error).toMatchObject({ kind: 'cancelled' });
  });

  it('waits for the end of the recovery, or for the records, or for nothing', async () => {
    const [known, done] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const recovery = { known: known.promise, done: done.promise };
    const order: string[] = [];
    const change = ask(() => order.push('change'), { recovery });
    const read = ask(() => order.push('read'), { recovery, options: { waitsFor: 'records' } });
    await ask(() => order.push('version'), { recovery, options: { waitsFor: 'nothing' } });
    await setImmediate();
    expect(order).toEqual(['version']);
    known.resolve();
    await read;
    await setImmediate();
    expect(order).toEqual(['version', 'read']);
    done.resolve();
    await change;
    expect(order).toEqual(['version', 'read', 'change']);
  });

  it('does not begin a call whose caller left while it waited for recovery', async () => {
    const recovered = Promise.withResolvers<void>();
    const recovery = { known: recovered.promise, done: recovered.promise };
    const handler = vi.fn(() => 'x');
    const call = new FakeCall('r');
    const answer = ask(handler, { call, recovery });
    call.cancel();
    expect((await answer).error).toMatchObject({ kind: 'cancelled' });
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

  it('says by name what is not implemented', async () => {
    await expect(unimplemented('CheckpointContainer')(new FakeCall() as never)).rejects.toMatchObject({
      kind: 'unimplemented',
      message: 'CheckpointContainer is not implemented by berth yet',
    });
  });
});

describe('serverStream', () => {
  const open = (
    call: FakeCall,
    handler: (request: unknown, send: (m: unknown) => Promise<void>, signal: AbortSignal) => Promise<void>,
    options: CallOptions = {},
  ) => serverStream('Some', { log, recovery: over }, handler, options)(call);

  it('sends in order and ends', async () => {
    const call = new FakeCall('r');
    await open(call, async (request, send) => {
      await send(`${request}1`);
      await send(`${request}2`);
    });
    expect(call.sent).toEqual(['r1', 'r2']);
    expect(call.hasHeaders).toBe(false);
  });

  it('waits for a client that does not keep up', async () => {
    const call = new FakeCall('r');
    const pace = Promise.withResolvers<void>();
    call.pace = pace.promise;
    const end = open(call, async (_request, send) => {
      await send(1);
      await send(2);
    });
    await setImmediate();
    expect(call.sent).toEqual([1]);
    pace.resolve();
    await end;
    expect(call.sent).toEqual([1, 2]);
  });

  it('ends with the reason that a client who left gets out of a waiting send', async () => {
    const call = new FakeCall('r');
    call.pace = new Promise(() => {});
    const end = open(call, async (_request, send) => send(1));
    await setImmediate();
    call.cancel();
    await expect(end).rejects.toMatchObject({ kind: 'cancelled' });
  });

  it('sends nothing to a client that left', async () => {
    const call = new FakeCall('r');
    let sent: Promise<void> | undefined;
    const end = open(call, async (_request, send, signal) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      sent = send(1);
      await sent;
    });
    await setImmediate();
    call.cancel();
    await expect(end).rejects.toMatchObject({ kind: 'cancelled' });
    await eventually(() => expect(sent).toBeDefined());
    await expect(sent).rejects.toMatchObject({ kind: 'cancelled' });
    expect(call.sent).toEqual([]);
  });

  it('tells at once that an endless one has begun, after the handler has', async () => {
    const call = new FakeCall('r');
    const order: boolean[] = [];
    const work = Promise.withResolvers<void>();
    const end = open(
      call,
      () => {
        order.push(call.hasHeaders);
        return work.promise;
      },
      { endless: true },
    );
    await setImmediate();
    expect([...order, call.hasHeaders]).toEqual([false, true]);
    work.resolve();
    await end;
  });
});

describe('clientStream', () => {
  it('hands the messages over and answers once', async () => {
    const call = new FakeCall(1, 2, 3);
    const rpc = clientStream('Some', { log, recovery: over }, async (requests: AsyncIterable<unknown>) => {
      let sum = 0;
      for await (const n of requests) sum += Number(n);
      return sum;
    });
    await rpc(call);
    expect(call.sent).toEqual([6]);
  });
});
