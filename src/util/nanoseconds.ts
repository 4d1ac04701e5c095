import { realtimeNs } from '../sys/clock.ts';

/**
 * Now, in nanoseconds since the epoch, as CRI wants its times. By the wall clock, also when that is set after
 * berthd has started, as it is on machines that boot without a clock; finer than a Date, which would give
 * many objects of a pod the same time.
 */
export function nowNs(): bigint {
  return realtimeNs();
}
