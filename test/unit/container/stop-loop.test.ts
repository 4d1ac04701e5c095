import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { StopLoops } from '../../../src/container/stop-loop.ts';

const DAY = 86_400_000;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A stop whose end the test decides, and whether its grace is over. */
function stop() {
  const ended = Promise.withResolvers<void>();
  const seen = { calls: 0, over: false };
  const work = (graceOver: Promise<void>) => {
    seen.calls += 1;
    void graceOver.then(() => {
      seen.over = true;
    });
    return ended.promise;
  };
  return { seen, work, ...ended };
}

describe('StopLoops', () => {
  it.each([
    // Later calls as [milliseconds after the first, their grace]; when grace is over, from the first call on.
    ['one call', 5_000, [], 5_000],
    ['a later, shorter one', 30_000, [[1_000, 2_000]], 3_000],
    ['a later, longer one', 5_000, [[1_000, 60_000]], 5_000],
    ['a later one with the same end', 5_000, [[1_000, 4_000]], 5_000],
    ['an urgent one', DAY, [[1_000, 0]], 1_000],
    [
      'several, the shortest counts',
      30_000,
      [
        [1_000, 20_000],
        [2_000, 8_000],
        [3_000, 9_000],
      ],
      10_000,
    ],
    ['no grace', 0, [], 0],
    ['a negative grace', -5, [], 0],
    [
      'a grace that an earlier call has cut short',
      30_000,
      [
        [1_000, 0],
        [1_000, 20_000],
      ],
      1_000,
    ],
  ] as [string, number, [number, number][], number][])(
    'ends grace once after %s',
    async (_name, grace, later, over) => {
      const loops = new StopLoops();
      const { seen, work, resolve } = stop();
      const all = [loops.run('c', grace, work)];
      let now = 0;
      for (const [at, shorter] of later) {
        await vi.advanceTimersByTimeAsync(at - now);
        now = at;
        all.push(loops.run('c', shorter, () => Promise.reject(new Error('a second loop was begun'))));
      }
      if (over > now) {
        await vi.advanceTimersByTimeAsync(over - now - 1);
        expect(seen.over).toBe(false);
        await vi.advanceTimersByTimeAsync(1);
      } else await vi.advanceTimersByTimeAsync(1);
      expect(seen).toEqual({ calls: 1, over: true });
      resolve();
      await Promise.all(all);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it('joins callers to the end of the work, not of grace', async () => {
    const loops = new StopLoops();
    const { work, resolve } = stop();
    const done = vi.fn();
    for (const grace of [1_000, 500]) void loops.run('c', grace, work).then(done);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(done).not.toHaveBeenCalled();
    resolve();
    await vi.advanceTimersByTimeAsync(0);
    expect(done).toHaveBeenCalledTimes(2);
  });

  it('leaves no timer when the work ends within grace, and begins anew afterwards', async () => {
    const loops = new StopLoops();
    const one = stop();
    one.resolve();
    await loops.run('c', DAY, one.work);
    expect(vi.getTimerCount()).toBe(0);
    const two = stop();
    two.resolve();
    await loops.run('c', DAY, two.work);
    expect([one.seen.calls, two.seen.calls]).toEqual([1, 1]);
  });

  it('tells all who joined of a failure, and begins anew afterwards', async () => {
    const loops = new StopLoops();
    const { work, reject } = stop();
    const both = [loops.run('c', 1_000, work), loops.run('c', 1_000, work)];
    reject(new Error('stuck'));
    expect(await Promise.allSettled(both)).toMatchObject([
      { reason: { message: 'stuck' } },
      { reason: { message: 'stuck' } },
    ]);
    expect(vi.getTimerCount()).toBe(0);
    await loops.run('c', 1_000, () => Promise.resolve());
  });

  it('keeps containers apart', async () => {
    const loops = new StopLoops();
    const [slow, quick] = [stop(), stop()];
    const waiting = loops.run('slow', DAY, slow.work);
    const done = loops.run('quick', 1_000, quick.work);
    await vi.advanceTimersByTimeAsync(1_000);
    expect([slow.seen.over, quick.seen.over]).toEqual([false, true]);
    quick.resolve();
    await done;
    slow.resolve();
    await waiting;
  });

  it('does not end a grace of months at once, which Node’s timers would', async () => {
    const loops = new StopLoops();
    const { seen, work, resolve } = stop();
    const waiting = loops.run('c', 365 * DAY, work);
    await vi.advanceTimersByTimeAsync(20 * DAY);
    expect(seen.over).toBe(false);
    resolve();
    await waiting;
  });
});
