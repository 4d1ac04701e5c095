import { kindOf } from '../errors.ts';
import { orAborted } from '../util/abort.ts';
import type { SingleFlight } from '../util/single-flight.ts';

/**
 * Does `work` unless it `isDone`, joining what runs for the same key. Work belongs to the pull that began it
 * and ends with that pull's cancellation; whoever only joined then begins anew.
 */
export async function joinOrDo(
  flights: SingleFlight<void>,
  key: string,
  signal: AbortSignal,
  isDone: () => boolean,
  work: () => Promise<void>,
): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    if (isDone()) return;
    const running = flights.get(key);
    if (running === undefined) return flights.run(key, work);
    try {
      return await orAborted(running, signal);
    } catch (e: unknown) {
      if (signal.aborted || kindOf(e) !== 'cancelled') throw e;
    }
  }
}
