import { describe, expect, test } from 'vitest';
import { grantedRlimits, hardLimits, parseUlimits } from '../../../src/spec/rlimits.ts';

const INFINITY = (1n << 64n) - 1n;

describe('parseUlimits', () => {
  test('soft and hard, one number for both, and none at all', () => {
    expect(
      parseUlimits(['nofile=1024:524288', 'core=0', 'memlock=unlimited', 'stack=8192:unlimited']),
    ).toEqual([
      { type: 'RLIMIT_NOFILE', soft: 1024n, hard: 524_288n },
      { type: 'RLIMIT_CORE', soft: 0n, hard: 0n },
      { type: 'RLIMIT_MEMLOCK', soft: INFINITY, hard: INFINITY },
      { type: 'RLIMIT_STACK', soft: 8192n, hard: INFINITY },
    ]);
  });

  test.each([
    [['files=1'], 'entry 1 is not like'],
    [['nofile'], 'entry 1 is not like'],
    [['core=0', 'nofile=-1'], 'entry 2 is not like'],
    [['nofile=lots'], 'entry 1 is not like'],
    [['nofile=1:2:3'], 'entry 1 is not like'],
    [['constructor=1'], 'entry 1 is not like'],
    [['nofile=2:1'], 'entry 1 has a soft limit above its hard one'],
    [['nofile=1', 'nofile=2'], 'entry 2 names the same limit'],
  ])('%j: %s', (entries, message) => {
    expect(() => parseUlimits(entries)).toThrow(message);
  });
});

const LIMITS = `Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1024                 20000                files
Max nice priority         0                    0
`;

test('hard limits are read from the kernel’s table', () => {
  expect(Object.fromEntries(hardLimits(LIMITS))).toEqual({
    RLIMIT_CPU: INFINITY,
    RLIMIT_NOFILE: 20_000n,
    RLIMIT_NICE: 0n,
  });
});

describe('grantedRlimits', () => {
  const wanted = parseUlimits(['nofile=30000:40000', 'core=5']);
  const own = new Map([['RLIMIT_NOFILE', 20_000n]]);

  test('stay below the daemon’s own without CAP_SYS_RESOURCE', () => {
    expect(grantedRlimits(wanted, { caps: new Set(), hardLimits: own })).toEqual([
      { type: 'RLIMIT_NOFILE', soft: 20_000n, hard: 20_000n },
      { type: 'RLIMIT_CORE', soft: 5n, hard: 5n },
    ]);
  });

  test('are what is asked for with it', () => {
    expect(grantedRlimits(wanted, { caps: new Set(['CAP_SYS_RESOURCE']), hardLimits: own })).toEqual(wanted);
  });
});
