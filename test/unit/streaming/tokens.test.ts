import { describe, expect, it } from 'vitest';
import { MAX_TOKENS, TOKEN_TTL_MS, TokenStore } from '../../../src/streaming/tokens.ts';

describe('TokenStore', () => {
  it('gives a value once', () => {
    const store = new TokenStore<number>();
    const token = store.put(7);
    expect(token).toMatch(/^[\w-]{32}$/);
    expect([store.take(token), store.take(token), store.take('')]).toEqual([7, undefined, undefined]);
  });

  it('forgets it after a minute, each by its own time', () => {
    let now = 0;
    const store = new TokenStore<string>(() => now);
    const first = store.put('first');
    now = TOKEN_TTL_MS - 1;
    const second = store.put('second');
    const third = store.put('third');
    expect(store.take(third)).toBe('third');
    now = TOKEN_TTL_MS;
    expect([store.take(first), store.take(second)]).toEqual([undefined, 'second']);
  });

  it('refuses more than a thousand that wait, and none when they are too old', () => {
    let now = 0;
    const store = new TokenStore<number>(() => now);
    const tokens = Array.from({ length: MAX_TOKENS }, (_, i) => store.put(i));
    expect(new Set(tokens).size).toBe(MAX_TOKENS);
    expect(() => store.put(0)).toThrow(expect.objectContaining({ kind: 'exhausted' }));
    store.take(tokens[5] ?? '');
    store.put(0);
    now = TOKEN_TTL_MS;
    for (let i = 0; i < MAX_TOKENS; i++) store.put(i);
  });
});
