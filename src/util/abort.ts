/** Waits for `work`, but no longer than the signal allows; the work itself goes on. @throws the signal's reason. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    // Nobody else waits for it, and an unhandled rejection would end the process.
    work.catch(() => {});
    return Promise.reject(signal.reason);
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/**
 * Node fires timers longer than 2^31-1 ms (24.8 days) after 1 ms; a kubelet may well ask for a longer
 * grace period.
 */
export const MAX_TIMER_MS = 2 ** 31 - 1;
