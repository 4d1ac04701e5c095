import { describe, expect, it } from 'vitest';
import {
  formatAge,
  formatBytes,
  formatDuration,
  parseDuration,
  parseTimestamp,
} from '../../../src/cli/units.ts';

const S = 1_000_000_000n;

describe('units', () => {
  it.each<[bigint, string]>([
    [0n, '0 B'],
    [1023n, '1023 B'],
    [1024n, '1.0 KiB'],
    [1536n, '1.5 KiB'],
    [102_400n, '100 KiB'],
    [1_048_575n, '1.0 MiB'],
    [(1n << 63n) - 1n, '8.0 EiB'],
  ])('writes %s bytes as %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it.each<[bigint, string]>([
    [0n, '0s'],
    [59n * S, '59s'],
    [60n * S, '1m'],
    [3_725n * S, '1h 2m'],
    [86_400n * S, '1d'],
    [90_061n * S, '1d 1h'],
  ])('writes %s ns as %s', (ns, text) => expect(formatDuration(ns)).toBe(text));

  it('does not know the age of what has no time, nor a negative one', () => {
    expect(formatAge(0n, S)).toBe('-');
    expect(formatAge(5n * S, 2n * S)).toBe('0s');
  });

  it('keeps nanoseconds of times', () => {
    const text = '2026-01-31T12:00:00.123456789Z';
    const ns = parseTimestamp(text);
    expect(ns).toBe(1_769_860_800_123_456_789n);
    expect(parseTimestamp('2026-01-31T14:00:00+02:00')).toBe(1_769_860_800_000_000_000n);
    expect(parseTimestamp('2026-01-31')).toBeUndefined();
    expect(parseTimestamp('2026-13-41T00:00:00Z')).toBeUndefined();
  });

  it.each<[string, bigint | undefined]>([
    ['90', 90n * S],
    ['1h30m', 5_400n * S],
    ['250ms', S / 4n],
    ['2d', 172_800n * S],
    ['', undefined],
    ['1x', undefined],
    ['-1s', undefined],
    ['1s ', undefined],
  ])('reads the duration %j as %s', (text, ns) => expect(parseDuration(text)).toBe(ns));
});
