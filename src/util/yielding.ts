import { setImmediate } from 'node:timers/promises';

/** Items between two turns of the event loop. Work on one takes a fraction of a millisecond. */
const AT_ONCE = 16;

/** `work` on each item, in order, letting others in every few items. */
export async function mapYielding<T, R>(
  items: Iterable<T>,
  work: (item: T) => R | Promise<R>,
): Promise<Awaited<R>[]> {
  const results: Awaited<R>[] = [];
  for (const item of items) {
    if (results.length % AT_ONCE === AT_ONCE - 1) await setImmediate();
    results.push(await work(item));
  }
  return results;
}
