import { describe, expect, it } from 'vitest';
import { criLines, rfc3339 } from '../../../src/runtime/shim/cri-log.ts';
import { parseLog } from '../../support/pods.ts';
import { randomSource } from './random.ts';

const AT = 1_700_000_000_000_000_007n;
const lines = (output: string | Buffer) => criLines('stdout', Buffer.from(output), AT).toString('latin1');

describe('a line of a CRI log', () => {
  it('has a time with all its nanoseconds, stream, tag and text', () => {
    expect(rfc3339(AT)).toBe('2023-11-14T22:13:20.000000007Z');
    expect(lines('a b\n\nc\n')).toBe(
      ['a b', '', 'c'].map((text) => `2023-11-14T22:13:20.000000007Z stdout F ${text}\n`).join(''),
    );
    expect(criLines('stderr', Buffer.from('x\n'), AT).toString()).toMatch(/ stderr F x\n$/);
    expect(lines('')).toBe('');
  });

  it('is a part when its end has not come, or it is long', () => {
    expect(lines('prompt> ')).toMatch(/^\S+ stdout P prompt> \n$/);
    const all = parseLog(Buffer.from(lines(`${'x'.repeat(40_000)}\nshort`), 'latin1'));
    expect(all.map(({ tag, text }) => [tag, text.length])).toEqual([
      ['P', 16_384],
      ['P', 16_384],
      ['F', 40_000 - 2 * 16_384],
      ['P', 5],
    ]);
    expect(parseLog(Buffer.from(lines(`${'y'.repeat(16_384)}\n`))).map(({ tag }) => tag)).toEqual(['F']);
  });

  it('keeps every byte, however output is cut', () => {
    const random = randomSource(0x106);
    for (let round = 0; round < 50; round++) {
      const output = random.bytes(random.below(3_000));
      for (let at = 0; at < output.length; at += 7) if (random.below(3) === 0) output[at] = 0x0a;
      let log = '';
      for (let at = 0; at < output.length; ) {
        const size = 1 + random.below(500);
        log += lines(output.subarray(at, at + size));
        at += size;
      }
      const said = parseLog(Buffer.from(log, 'latin1')).map(({ tag, text }) =>
        tag === 'F' ? `${text}\n` : text,
      );
      expect(said.join('')).toBe(output.toString('latin1'));
    }
  });
});
