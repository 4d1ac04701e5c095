import { describe, expect, it } from 'vitest';
import { sharesToWeight, weightToShares } from '../../../cgroups/index.ts';

describe('cpu.shares and cpu.weight', () => {
  // 2000 → 170 is the pair that runc 1.4.0-rc.1 was reported to write; the others are the ends and defaults.
  it.each([
    [0n, 1n],
    [2n, 1n],
    [1024n, 100n],
    [2000n, 170n],
    [262_144n, 10_000n],
    [1n << 40n, 10_000n],
  ])('turns %s shares into weight %s', (shares, weight) => {
    expect(sharesToWeight(shares)).toBe(weight);
  });

  it('never lets more shares weigh less, and stays within the kernel’s range', () => {
    let last = 0n;
    for (let shares = 2n; shares <= 262_144n; shares += 97n) {
      const weight = sharesToWeight(shares);
      expect(weight >= last && weight >= 1n && weight <= 10_000n).toBe(true);
      last = weight;
    }
  });

  it('goes back to shares that weigh the same, give or take the rounding', () => {
    expect(weightToShares(100n)).toBe(1024n);
    for (let weight = 1n; weight <= 10_000n; weight += 13n) {
      const back = sharesToWeight(weightToShares(weight));
      expect(back >= weight - 1n && back <= weight + 1n, `weight ${weight} came back as ${back}`).toBe(true);
    }
  });
});
