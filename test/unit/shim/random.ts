/** Numbers that look random and are the same in every run (xorshift32), for tests that try many inputs. */
export function randomSource(seed: number): { below(limit: number): number; bytes(length: number): Buffer } {
  let state = seed | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const below = (limit: number) => next() % Math.max(limit, 1);
  return { below, bytes: (length) => Buffer.from(Array.from({ length }, () => below(256))) };
}
