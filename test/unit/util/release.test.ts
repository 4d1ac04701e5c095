import { expect, it } from 'vitest';
import { release } from '../../../src/util/release.ts';

it('gives back the memory of a large buffer, and of none that shares it or is small', () => {
  const large = Buffer.alloc(100_000, 1);
  release(large);
  expect(large.length).toBe(0);
  const shared = Buffer.alloc(100_000, 1);
  release(shared.subarray(1));
  release(shared.subarray(0, 50_000));
  expect(shared).toEqual(Buffer.alloc(100_000, 1));
  const pooled = Buffer.from('a small one');
  release(pooled);
  expect(String(pooled)).toBe('a small one');
});
