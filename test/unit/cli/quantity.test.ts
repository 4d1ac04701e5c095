import { describe, expect, it } from 'vitest';
import { parseBytes, parseMilliCpu, parseQuantity } from '../../../src/cli/pod/quantity.ts';
import { BerthError } from '../../../src/errors.ts';

describe('quantities', () => {
  it.each<[string | number, bigint]>([
    ['0', 0n],
    ['128Mi', 134_217_728n],
    ['1.5Gi', 1_610_612_736n],
    ['1k', 1000n],
    ['1e3', 1000n],
    ['1E3', 1000n],
    ['2E', 2_000_000_000_000_000_000n],
    ['16Ei', 18_446_744_073_709_551_616n],
    ['12e-1', 2n],
    ['0.1', 1n],
    ['100m', 1n],
    ['.5Ki', 512n],
    ['+7', 7n],
    [42, 42n],
    [1e21, 10n ** 21n],
  ])('reads %s bytes as %s', (text, bytes) => expect(parseBytes(text, 'f')).toBe(bytes));

  it.each<[string | number, bigint]>([
    ['250m', 250n],
    [2, 2000n],
    [0.1, 100n],
    ['1', 1000n],
    ['1500u', 2n],
    ['1n', 1n],
  ])('reads %s CPUs as %s thousandths', (text, milli) => expect(parseMilliCpu(text, 'f')).toBe(milli));

  it.each([
    '',
    ' ',
    '.',
    'Mi',
    '1 Mi',
    '1mi',
    '1Kb',
    '-1',
    '0x10',
    '1e99',
    '1e',
    '--1',
    '1.2.3',
    '9'.repeat(50),
  ])('refuses %j and names the field', (text) => {
    try {
      parseQuantity(text, 'spec.x');
      expect.unreachable();
    } catch (e: unknown) {
      expect(e).toBeInstanceOf(BerthError);
      expect((e as BerthError).message).toMatch(/^spec\.x: must/);
    }
  });
});
