import { vi } from 'vitest';

/** A busy machine needs seconds for what takes none; a failed test may take its time. Milliseconds. */
const PATIENCE = { timeout: 20_000, interval: 10 };

/** Waits until `look` throws no more. @returns what it answers then @throws what it threw last */
export function eventually<T>(look: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(look, PATIENCE);
}
