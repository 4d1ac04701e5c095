import { setImmediate } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { BerthError, during, invalid, isErrno, kindOf, messageOf, notFound } from '../../../src/errors.ts';
import { noFaults } from '../../../src/faults.ts';
import { newId } from '../../../src/id.ts';
import { MAX_TIMER_MS, orAborted } from '../../../src/util/abort.ts';
import { KeyedMutex } from '../../../src/util/keyed-mutex.ts';
import { nowNs } from '../../../src/util/nanoseconds.ts';
import { SingleFlight } from '../../../src/util/single-flight.ts';
import { tearDown } from '../../../src/util/teardown.ts';
import { eventually } from '../../support/eventually.ts';

/** Rejections that nobody handled while `work` ran: each would end the daemon. */
async function unhandled(work: () => Promise<void>): Promise<unknown[]> {
  const seen: unknown[] = [];
  const others = process.rawListeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  process.on('unhandledRejection', (e) => seen.push(e));
  try {
    await work();
    await setImmediate();
    return seen;
  } finally {
    process.removeAllListeners('unhandledRejection');
    for (const listener of others)
      process.on('unhandledRejection', listener as NodeJS.UnhandledRejectionListener);
  }
}

describe('orAborted', () => {
  const reason = new BerthError('deadline', 'too late');

  it('gives the result or failure of work that ends first', async () => {
    const { signal } = new AbortController();
    expect(await orAborted(Promise.resolve(7), signal)).toBe(7);
    await expect(orAborted(Promise.reject(reason), signal)).rejects.toBe(reason);
  });

  it.each(['before', 'after'])('gives the reason of a signal that came %s the call', async (when) => {
    const left = await unhandled(async () => {
      const abort = new AbortController();
      const work = Promise.withResolvers<void>();
      if (when === 'before') abort.abort(reason);
      const waiting = orAborted(work.promise, abort.signal);
      abort.abort(reason);
      await expect(waiting).rejects.toBe(reason);
      work.reject(new Error('the work failed later'));
    });
    expect(left).toEqual([]);
  });

  it('takes its listener off again', async () => {
    const { signal } = new AbortController();
    const off = vi.spyOn(signal, 'removeEventListener');
    const on = vi.spyOn(signal, 'addEventListener');
    await orAborted(Promise.resolve(), signal);
    await eventually(() => expect(off).toHaveBeenCalledTimes(on.mock.calls.length));
  });

  it('knows how long a timer may be', () => {
    vi.useFakeTimers();
    try {
      const fire = vi.fn();
      setTimeout(fire, MAX_TIMER_MS);
      vi.advanceTimersByTime(MAX_TIMER_MS - 1);
      expect(fire).not.toHaveBeenCalled();
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('KeyedMutex', () => {
  it('runs work of one key in order, after failures too, and never makes another key wait', async () => {
    const mutex = new KeyedMutex();
    const order: string[] = [];
    const first = Promise.withResolvers<void>();
    const a = mutex.run('k', async () => {
      order.push('a begins');
      await first.promise;
      order.push('a fails');
      throw new Error('a');
    });
    const b = mutex.run('k', async () => void order.push('b'));
    const c = mutex.run('k', async () => void order.push('c'));
    await mutex.run('other', async () => void order.push('other'));
    expect(order).toEqual(['a begins', 'other']);
    first.resolve();
    await expect(a).rejects.toThrow('a');
    await Promise.all([b, c]);
    expect(order).toEqual(['a begins', 'other', 'a fails', 'b', 'c']);
  });

  it('gives the result, and takes a key again after it was free', async () => {
    const mutex = new KeyedMutex();
    expect(await mutex.run('k', async () => 1)).toBe(1);
    expect(await mutex.run('k', async () => 2)).toBe(2);
  });

  it('leaves no rejection unhandled', async () => {
    const mutex = new KeyedMutex();
    const left = await unhandled(async () => {
      const failing = mutex.run('k', () => Promise.reject(new Error('a')));
      const next = mutex.run('k', async () => 1);
      await expect(failing).rejects.toThrow('a');
      expect(await next).toBe(1);
    });
    expect(left).toEqual([]);
  });
});

describe('SingleFlight', () => {
  it('joins calls that overlap and works anew afterwards', async () => {
    const flights = new SingleFlight<number>();
    const gate = Promise.withResolvers<number>();
    const start = vi.fn(() => gate.promise);
    const both = [flights.run('k', start), flights.run('k', start)];
    expect(flights.get('k')).toBe(both[0]);
    gate.resolve(1);
    expect(await Promise.all(both)).toEqual([1, 1]);
    expect(start).toHaveBeenCalledTimes(1);
    expect(flights.get('k')).toBeUndefined();
    expect(await flights.run('k', async () => 2)).toBe(2);
  });

  it('tells all who joined of a failure, and forgets it', async () => {
    const flights = new SingleFlight<number>();
    const left = await unhandled(async () => {
      const fail = () => Promise.reject(new Error('no'));
      const both = [flights.run('k', fail), flights.run('k', fail)];
      expect(await Promise.allSettled(both)).toMatchObject([{ status: 'rejected' }, { status: 'rejected' }]);
    });
    expect(left).toEqual([]);
    expect(await flights.run('k', async () => 3)).toBe(3);
  });

  it('keeps keys apart', async () => {
    const flights = new SingleFlight<string>();
    const one = flights.run('a', async () => 'a');
    expect(await Promise.all([one, flights.run('b', async () => 'b')])).toEqual(['a', 'b']);
  });

  it('settles when all has ended, however', async () => {
    const flights = new SingleFlight<number>();
    await flights.settled();
    const [good, bad] = [Promise.withResolvers<number>(), Promise.withResolvers<number>()];
    const results = Promise.allSettled([
      flights.run('a', () => good.promise),
      flights.run('b', () => bad.promise),
    ]);
    const settled = vi.fn();
    const waiting = flights.settled().then(settled);
    bad.reject(new Error('no'));
    await setImmediate();
    expect(settled).not.toHaveBeenCalled();
    good.resolve(1);
    await waiting;
    await results;
  });
});

describe('tearDown', () => {
  it('takes every step in order, also after failures, and names these', async () => {
    const point = 'StopPodSandbox.network';
    const done: string[] = [];
    const failures = await tearDown(noFaults, [
      { what: 'network', point, undo: async () => Promise.reject(new Error('busy')) },
      {
        what: 'mount',
        point,
        undo: () => {
          throw new Error('gone');
        },
      },
      { what: 'files', point, undo: () => void done.push('files') },
      { what: 'cgroup', point, undo: async () => void done.push('cgroup') },
    ]);
    expect(failures).toEqual(['network: busy', 'mount: gone']);
    expect(done).toEqual(['files', 'cgroup']);
    expect(await tearDown(noFaults, [])).toEqual([]);
  });
});

describe('times', () => {
  it('are nanoseconds since the epoch by the wall clock', () => {
    const before = BigInt(Date.now()) * 1_000_000n;
    const times = Array.from({ length: 1000 }, nowNs);
    expect(times).toEqual(times.toSorted((a, b) => (a < b ? -1 : Number(a > b))));
    const after = BigInt(Date.now() + 1) * 1_000_000n;
    for (const time of [times[0] ?? 0n, times.at(-1) ?? 0n]) {
      expect(time).toBeGreaterThanOrEqual(before);
      expect(time).toBeLessThan(after);
    }
    // Finer than a millisecond, so that the objects of a pod have an order.
    expect(new Set(times).size).toBeGreaterThan(10);
  });
});

describe('errors', () => {
  it('have a kind and a message that names the thing', () => {
    expect(invalid('config.metadata', 'is required')).toMatchObject({
      kind: 'invalid',
      message: 'config.metadata: is required',
    });
    expect(notFound('container "x"')).toMatchObject({ kind: 'notFound', message: 'container "x" not found' });
    expect(messageOf('text')).toBe('text');
    expect(messageOf(null)).toBe('null');
  });

  it('keep kind and cause when a step is put before them', () => {
    const cause = notFound('image "x"');
    const e = during('pull', cause);
    expect(e).toMatchObject({ kind: 'notFound', message: 'pull: image "x" not found', cause });
    expect(kindOf(during('x', new DOMException('', 'TimeoutError')))).toBe('deadline');
    expect(kindOf(during('x', new Error('')))).toBe('internal');
  });

  it('are told apart by errno', () => {
    const e = Object.assign(new Error('x'), { code: 'ENOENT' });
    expect(isErrno(e, 'EPERM', 'ENOENT')).toBe(true);
    expect(isErrno(e, 'EPERM')).toBe(false);
    expect(isErrno({ code: 'ENOENT' }, 'ENOENT')).toBe(false);
    expect(isErrno(Object.assign(new Error('x'), { code: 2 }), '2')).toBe(false);
  });
});

describe('newId', () => {
  it('is 64 lowercase hex digits, never the same', () => {
    const ids = Array.from({ length: 100 }, newId);
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(ids).size).toBe(100);
  });
});
