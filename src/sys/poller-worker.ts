import { parentPort, workerData } from 'node:worker_threads';
import { epollWait } from './epoll.ts';

/**
 * The thread behind `Poller`: waits, posts what is ready, waits again. It never returns to its own event
 * loop before token 0 (the wake-up eventfd) says to end; posting works without one.
 */
const { epollFd } = workerData as { epollFd: number };

for (let running = true; running; ) {
  const ready = epollWait(epollFd);
  if (ready.some((event) => event.token === 0)) running = false;
  else if (ready.length > 0) parentPort?.postMessage(ready);
}
