import { expect, it } from 'vitest';
import { parseTimeout } from '../../../../cri/grpc/timeout.ts';

it.each([
  ['1H', 3_600_000],
  ['2M', 120_000],
  ['3S', 3_000],
  ['250m', 250],
  ['1500u', 2],
  ['99999999n', 100],
  ['0m', 0],
  ['99999999H', 99_999_999 * 3_600_000],
])('%s are %d ms', (header, expected) => {
  expect(parseTimeout(header)).toBe(expected);
});

it.each(['', '1', 'm', '1s', '-1m', '1.5S', '123456789m', '1m '])('%j is none', (header) => {
  expect(() => parseTimeout(header)).toThrow(
    expect.objectContaining({ kind: 'internal', message: expect.stringContaining('grpc-timeout') }),
  );
});
