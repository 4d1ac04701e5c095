import { orAborted } from '../util/abort.ts';
import type { SingleFlight } from '../util/single-flight.ts';

/**
 * Does `work` unless it `isDone`, joining what runs for the same key. Work belongs to the pull that began it
 * and ends with that pull: when it fails, whoever only joined begins anew, as the reason may be the other's
 * registry, credentials or patience.
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
    } catch {
      // Theirs, or the signal's.
    }
  }
}
