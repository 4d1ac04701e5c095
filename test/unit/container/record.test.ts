import { describe, expect, it } from 'vitest';
import type { CgroupStats } from '../../../cgroups/index.ts';
import { containerKey, containerState } from '../../../src/container/record.ts';
import { CpuRates } from '../../../src/container/stats.ts';
import { isReady, sandboxKey } from '../../../src/sandbox/record.ts';
import { container, sandbox } from '../cri/records.ts';
import { containerConfig, sandboxConfig } from '../spec/configs.ts';

const exit = { code: 0, finishedAt: 2n, reason: 'Completed', message: '' };

describe('containerState', () => {
  it.each([
    [{}, 'created'],
    [{ createError: 'x' }, 'created'],
    [{ startedAt: 1n }, 'running'],
    [{ startedAt: 1n, exit }, 'exited'],
    [{ exit }, 'exited'],
  ])('%o is %s', (over, state) => {
    expect(containerState(container(over))).toBe(state);
  });
});

describe('isReady', () => {
  it.each([
    [{}, true],
    [{ stoppedAt: 0n }, false],
    [{ phase: 'creating' as const }, false],
    [{ phase: 'removing' as const }, false],
  ])('%o: %s', (over, ready) => {
    expect(isReady(sandbox(over))).toBe(ready);
  });
});

describe('keys of idempotency', () => {
  it('differ with each part, also when parts hold each other’s separators', () => {
    const pod = (name: string, namespace: string, uid: string, attempt: number) =>
      sandboxKey(sandboxConfig({ metadata: { name, namespace, uid, attempt } }));
    const keys = [
      pod('a', 'b', 'c', 0),
      pod('a', 'b', 'c', 1),
      pod('b', 'a', 'c', 0),
      pod('a', 'b","c', '', 0),
      pod('a_b', '', 'c', 0),
      pod('a', 'b_c', '', 0),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    expect(pod('a', 'b', 'c', 0)).toBe(keys[0]);
    const inside = (sandboxId: string, name: string, attempt: number) =>
      containerKey(sandboxId, containerConfig({ metadata: { name, attempt } }));
    const others = [inside('s', 'a', 0), inside('s', 'a', 1), inside('t', 'a', 0), inside('s', 'b', 0)];
    expect(new Set(others).size).toBe(4);
  });
});

describe('CpuRates', () => {
  /** A reading at so many milliseconds of so many milliseconds of CPU. */
  const at = (ms: number, usedMs: number | undefined) =>
    ({
      timestampNs: BigInt(ms) * 1_000_000n,
      cpu: { usageNs: usedMs === undefined ? undefined : BigInt(usedMs) * 1_000_000n },
    }) as CgroupStats;
  const CORE = 1_000_000_000n;

  it('is the use since the reading before, in nanoseconds per second', () => {
    const rates = new CpuRates();
    expect(rates.rate('c', at(1_000, 500))).toBeUndefined();
    expect(rates.rate('c', at(2_000, 1_000))).toBe(CORE / 2n);
    expect(rates.rate('c', at(4_000, 9_000))).toBe(4n * CORE);
    expect(rates.rate('c', at(5_000, 9_000))).toBe(0n);
  });

  it('answers a reading too soon after another with the last rate', () => {
    const rates = new CpuRates();
    rates.rate('c', at(1_000, 0));
    expect(rates.rate('c', at(1_050, 50))).toBeUndefined();
    expect(rates.rate('c', at(2_000, 500))).toBe(CORE / 2n);
    expect(rates.rate('c', at(2_050, 550))).toBe(CORE / 2n);
    // And measures the next one from the one that counted.
    expect(rates.rate('c', at(3_000, 1_500))).toBe(CORE);
  });

  it('keeps containers apart, and knows nothing of what was forgotten or not read', () => {
    const rates = new CpuRates();
    rates.rate('a', at(1_000, 0));
    expect(rates.rate('b', at(2_000, 900))).toBeUndefined();
    expect(rates.rate('a', at(2_000, undefined))).toBeUndefined();
    rates.forget('a');
    expect(rates.rate('a', at(3_000, 500))).toBeUndefined();
  });

  it('is unknown, not negative, after a counter that went back', () => {
    const rates = new CpuRates();
    rates.rate('c', at(1_000, 5_000));
    expect(rates.rate('c', at(2_000, 10))).toBeUndefined();
    expect(rates.rate('c', at(2_050, 10))).toBeUndefined();
    expect(rates.rate('c', at(3_000, 510))).toBe(CORE / 2n);
  });
});
