import { describe, expect, it } from 'vitest';
import { containerKey, containerState } from '../../../src/container/record.ts';
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
