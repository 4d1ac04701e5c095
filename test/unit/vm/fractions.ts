import { randomSource } from '../shim/random.ts';

/** Numbers from 0 to below 1, the same in every run. */
export function random(seed: number): () => number {
  const { below } = randomSource(seed);
  return () => below(1_000_000) / 1_000_000;
}
