import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BerthError } from '../../../src/errors.ts';
import type { Logger } from '../../../src/log.ts';
import { ExitWatch } from '../../../src/runtime/exit-watch.ts';
import type { Poller } from '../../../src/sys/poller.ts';

const PROCESS = { pid: 77, startTime: 1n };

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function watch() {
  const end = Promise.withResolvers<void>();
  const poller = { watchExit: vi.fn(() => end.promise) };
  const log = { error: vi.fn() };
  const exits = new ExitWatch(poller as unknown as Poller, log as unknown as Logger);
  const ended = (id: string) => {
    const seen = vi.fn();
    void exits.ended(id).then(seen);
    return seen;
  };
  return { exits, poller, log, end, ended };
}

describe('ExitWatch', () => {
  it('calls once when the process has ended, and tells when that has been dealt with', async () => {
    const { exits, poller, end, ended } = watch();
    const recorded = Promise.withResolvers<void>();
    const onExit = vi.fn(() => recorded.promise);
    exits.watch('c1', PROCESS, onExit);
    expect(poller.watchExit).toHaveBeenCalledExactlyOnceWith(PROCESS);
    const seen = ended('c1');
    await vi.advanceTimersByTimeAsync(1_000);
    expect(onExit).not.toHaveBeenCalled();
    end.resolve();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(onExit).toHaveBeenCalledTimes(1);
    expect(seen).not.toHaveBeenCalled();
    recorded.resolve();
    await vi.advanceTimersByTimeAsync(0);
    expect(seen).toHaveBeenCalled();
    // Also for who asks afterwards.
    await exits.ended('c1');
  });

  it('calls at once for a process that is not there', async () => {
    const { exits, poller } = watch();
    const onExit = vi.fn(async () => undefined);
    exits.watch('c1', undefined, onExit);
    await exits.ended('c1');
    expect(onExit).toHaveBeenCalledTimes(1);
    expect(poller.watchExit).not.toHaveBeenCalled();
  });

  it('tries again, ever seldomer, while an end cannot be recorded', async () => {
    // The wait between tries is Node's own, which fake timers do not reach.
    vi.useRealTimers();
    const { exits, log, end } = watch();
    const at: number[] = [];
    exits.watch('c1', PROCESS, async () => {
      at.push(performance.now());
      if (at.length < 3) throw new Error('the disk is full');
    });
    end.resolve();
    await exits.ended('c1');
    expect(at).toHaveLength(3);
    const [first = 0, second = 0, third = 0] = at;
    expect(second - first).toBeGreaterThan(190);
    expect(third - second).toBeGreaterThan(390);
    expect(log.error).toHaveBeenCalledTimes(2);
    expect(log.error).toHaveBeenCalledWith({ id: 'c1', reason: 'the disk is full' }, expect.any(String));
  });

  it('records no end when it is the daemon that ends', async () => {
    const { exits, end, log } = watch();
    const onExit = vi.fn(async () => undefined);
    exits.watch('c1', PROCESS, onExit);
    end.reject(new BerthError('cancelled', 'closed'));
    await exits.ended('c1');
    expect(onExit).not.toHaveBeenCalled();
    expect(log.error).not.toHaveBeenCalled();
  });

  it('has nothing to wait for where it does not watch', async () => {
    const { exits, ended } = watch();
    await exits.ended('unknown');
    exits.watch('c1', PROCESS, async () => undefined);
    exits.forget('c1');
    const seen = ended('c1');
    await vi.advanceTimersByTimeAsync(0);
    expect(seen).toHaveBeenCalled();
  });
});
