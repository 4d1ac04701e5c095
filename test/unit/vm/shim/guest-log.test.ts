import { expect, it } from 'vitest';
import { GuestLog } from '../../../../src/vm/shim/guest-log.ts';

it('passes on what the agent says, in bounds', () => {
  const lines: string[] = [];
  let now = 0;
  const log = new GuestLog(
    (level, message) => lines.push(`${level} ${message}`),
    () => now,
  );
  const say = (message: string, level: 'debug' | 'error' = 'error') =>
    log.take({ event: 'log', level, message });
  say('x'.repeat(100_000), 'debug');
  expect(lines[0]).toMatch(/^debug agent: x{2000}$/);
  for (let i = 0; i < 1000; i++) say(`m${i}`);
  expect(lines.slice(-2)).toEqual([
    'warn agent: m98',
    'warn agent: it says too much, so some of it is left out',
  ]);
  now += 3_500;
  for (let i = 0; i < 10; i++) say(`later${i}`);
  expect(lines.filter((line) => line.includes('later'))).toHaveLength(3);
});
