import { declareBlocking } from './libc.ts';

const POLLFD_SIZE = 8;
/** How long a wait goes on after its signal, milliseconds. */
const STEP_MS = 200;

const cPoll = declareBlocking<[Buffer, number, number]>('poll', ['void *', 'ulong', 'int']);

/**
 * Waits for single descriptors on libuv's threads: for programs that seldom wait and do not want the thread of a
 * Poller. Each wait takes one of the threads.
 */
export class BlockingPoller {
  /**
   * Resolves when the descriptor has one of the events (epoll's and poll's numbers are the same) or an error.
   *
   * @throws the signal's reason
   */
  async ready(fd: number, events: number, { signal }: { signal: AbortSignal }): Promise<void> {
    const pollfd = Buffer.alloc(POLLFD_SIZE);
    pollfd.writeInt32LE(fd, 0);
    pollfd.writeUInt16LE(events, 4);
    for (;;) {
      signal.throwIfAborted();
      if ((await cPoll(pollfd, 1, STEP_MS)) > 0) return;
    }
  }

  remove(): void {}
}
