import { describe, expect, it } from 'vitest';
import { Signal } from '../../proto/gen/runtime/v1/Signal.ts';
import { signalName, signalNumber } from '../../src/signals.ts';

describe('signalNumber', () => {
  it.each([
    ['TERM', 15],
    ['SIGTERM', 15],
    ['sigquit', 3],
    ['15', 15],
    ['RTMIN+3', 37],
    ['SIGRTMAX-2', 62],
    ['SIGRTMIN', 34],
    ['64', 64],
    ['SIGCLD', 17],
    ['', undefined],
    ['0', undefined],
    ['33', undefined],
    ['65', undefined],
    ['RTMIN+31', undefined],
    ['SIGNONSENSE', undefined],
  ])('of %j is %j', (text, number) => {
    expect(signalNumber(text)).toBe(number);
  });

  it('knows every signal of CRI', () => {
    const names = Object.keys(Signal).filter((name) => name !== 'RUNTIME_DEFAULT');
    const unknown = names.filter(
      (name) => signalNumber(name.replace('PLUS', '+').replace('MINUS', '-')) === undefined,
    );
    expect(unknown).toEqual([]);
  });
});

describe('signalName', () => {
  it('is read back as the same number, and is one that CRI has', () => {
    for (let number = 1; number <= 64; number++) {
      if (number === 32 || number === 33) continue;
      const name = signalName(number);
      expect(signalNumber(name)).toBe(number);
      expect(Signal).toHaveProperty(name.replace('+', 'PLUS').replace('-', 'MINUS'));
    }
  });
});
