import { setImmediate } from 'node:timers/promises';

/** How long one turn of the event loop may be kept, milliseconds. */
const TURN_MS = 5;

/** `work` on each item, in order, letting others in every few milliseconds. */
export async function mapYielding<T, R>(
  items: Iterable<T>,
  work: (item: T) => R | Promise<R>,
): Promise<Awaited<R>[]> {
  const results: Awaited<R>[] = [];
  let turn = performance.now();
  for (const item of items) {
    if (performance.now() - turn > TURN_MS) {
      await setImmediate();
      turn = performance.now();
    }
    const result = work(item);
    results.push(result instanceof Promise ? await result : (result as Awaited<R>));
  }
  return results;
}
