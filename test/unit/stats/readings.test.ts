import { describe, expect, it } from 'vitest';
import type { CgroupUsage } from '../../../cgroups/types.ts';
import { Readings } from '../../../src/stats/readings.ts';

const CORE = 1_000_000_000n;
const INTERVAL = 10_000;

/** One cgroup whose clock and counter the test moves. */
function machine() {
  const state = { ms: 0, usedMs: 0 as number | undefined, reads: 0 };
  const usageNs = () => (state.usedMs === undefined ? undefined : BigInt(state.usedMs) * 1_000_000n);
  const readings = new Readings(
    {
      usage: (path) => {
        state.reads++;
        return path === '/gone' ? undefined : ({ cpu: { usageNs: usageNs() } } as CgroupUsage);
      },
      cpuUsageNs: usageNs,
    },
    INTERVAL,
    () => state.ms,
  );
  /** At so many milliseconds, with so much CPU used since the beginning. */
  const at = (ms: number, usedMs: number | undefined) => {
    state.ms = ms;
    state.usedMs = usedMs;
    return { rate: (path = '/c') => readings.read(path)?.nanoCores, sample: () => readings.sample('/c') };
  };
  return { state, readings, at };
}

describe('the CPU rate', () => {
  it('is that between the two last samples, whoever asks, and however often', () => {
    const { at } = machine();
    at(0, 0).sample();
    at(10_000, 5_000).sample();
    expect(at(10_001, 5_000).rate()).toBe(CORE / 2n);
    expect(at(15_000, 9_000).rate()).toBe(CORE / 2n);
    expect(at(19_999, 9_000).rate()).toBe(CORE / 2n);
    at(20_000, 25_000).sample();
    expect(at(20_500, 25_000).rate()).toBe(2n * CORE);
    at(30_000, 25_000).sample();
    expect(at(30_500, 25_000).rate()).toBe(0n);
  });

  it('is that since the cgroup was first seen, until a whole interval is measured', () => {
    const { at } = machine();
    expect(at(9_000, 100).rate()).toBeUndefined();
    expect(at(9_050, 150).rate()).toBeUndefined();
    expect(at(9_500, 350).rate()).toBe(CORE / 2n);
    // The next sample comes too soon to end an interval.
    at(10_000, 1_100).sample();
    expect(at(11_000, 2_100).rate()).toBe(CORE);
    at(20_000, 2_100).sample();
    expect(at(29_000, 90_000).rate()).toBe((2_000n * CORE) / 11_000n);
  });

  it('is unknown, not negative, after a counter that began anew', () => {
    const { at } = machine();
    at(0, 0).sample();
    at(10_000, 5_000).sample();
    expect(at(11_000, 10).rate()).toBeUndefined();
    expect(at(12_000, 510).rate()).toBe(CORE / 2n);
    at(20_000, 5).sample();
    expect(at(20_050, 5).rate()).toBeUndefined();
    expect(at(21_000, 970).rate()).toBe((970n - 5n) * 1_000_000n);
  });

  it('is unknown where the counter is', () => {
    const { at } = machine();
    at(0, undefined).sample();
    expect(at(10_000, undefined).rate()).toBeUndefined();
    expect(at(20_000, 7).rate('/gone')).toBeUndefined();
  });
});

describe('Readings', () => {
  it('reads again unless the last reading is young enough for the caller', () => {
    const { state, readings } = machine();
    const first = readings.read('/c', 1_000);
    state.ms = 999;
    expect(readings.read('/c', 1_000)).toBe(first);
    expect(state.reads).toBe(1);
    expect(readings.read('/c')).not.toBe(first);
    state.ms = 1_999;
    readings.read('/c', 1_000);
    expect(state.reads).toBe(3);
  });

  it('forgets all but what it is told to keep', () => {
    const { at, readings } = machine();
    at(0, 0).sample();
    readings.retain(new Set(['/c']));
    at(10_000, 10_000).sample();
    expect(at(10_000, 10_000).rate()).toBe(CORE);
    readings.retain(new Set(['/other']));
    expect(at(10_200, 10_000).rate()).toBeUndefined();
  });
});
