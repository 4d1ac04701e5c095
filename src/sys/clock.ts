import { check, declare } from './libc.ts';

const CLOCK_REALTIME = 0;
const SECOND = 1_000_000_000n;

const cClockGettime = declare<[number, Buffer]>('clock_gettime', ['int', 'void *']);

/**
 * The wall clock, nanoseconds since the epoch (clock_gettime(2)). Node's clocks have milliseconds, or do not
 * follow when the wall clock is set: what `performance.timeOrigin` began with.
 *
 * @throws SyscallError
 */
export function realtimeNs(): bigint {
  const timespec = Buffer.alloc(16);
  check('clock_gettime', cClockGettime(CLOCK_REALTIME, timespec));
  return timespec.readBigInt64LE(0) * SECOND + timespec.readBigInt64LE(8);
}
