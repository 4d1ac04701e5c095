import { closeSync, writeSync } from 'node:fs';
import { BerthError, isErrno } from '../errors.ts';
import {
  EPOLLIN,
  EPOLLONESHOT,
  EpollWaiter,
  epollAdd,
  epollCreate,
  epollDelete,
  epollModify,
  eventfd,
  type ReadyEvent,
} from './epoll.ts';
import { pidfdOpen } from './pidfd.ts';
import { isAlive, type ProcessIdentity } from './process-identity.ts';
import { reap } from './reap.ts';

const WAKE_TOKEN = 0;

interface Registration {
  fd: number;
  events: number;
  callback: (events: number) => void;
}

/**
 * Waits for descriptors that Node's event loop cannot: pidfds, eventfds, SOCK_SEQPACKET sockets. One thread
 * of libuv's pool sits in epoll_wait for all of them; a worker thread of Node would do the same for 10 MB of
 * memory, which is V8's for an empty worker. (The daemon starts with one pool thread more than the usual four.)
 *
 * Every descriptor is one-shot: the kernel disarms it with the event and it is armed again after its
 * callback has run. So one that stays readable is reported once per turn of the event loop, not
 * thousands of times while the message is on its way, and still none is missed, as arming reports
 * what is ready already. Tokens are never reused, so an event in flight for a removed descriptor cannot
 * reach the next user of its number.
 *
 * The wait keeps the process alive until `close` or `process.exit`. If it fails, the process ends with its
 * error: a daemon that no longer sees exits must be restarted.
 */
export class Poller {
  readonly #epollFd: number;
  readonly #wakeFd: number;
  readonly #tokens = new Map<number, number>();
  readonly #registrations = new Map<number, Registration>();
  readonly #watches = new Set<(e: Error) => void>();
  readonly #ended: Promise<void>;
  #lastToken = WAKE_TOKEN;
  #closing: Promise<void> | undefined;

  constructor() {
    this.#epollFd = epollCreate();
    this.#wakeFd = eventfd();
    epollAdd(this.#epollFd, this.#wakeFd, EPOLLIN, WAKE_TOKEN);
    this.#ended = this.#wait();
    // Node joins its threads when it exits, and cannot interrupt this one by itself.
    process.on('exit', this.#wake);
  }

  /**
   * Calls back with the event bits whenever `fd` is ready for one of `events` (EPOLLIN, …), error and
   * hang-up included, until `remove`. Data left unread is reported again.
   *
   * @throws SyscallError EEXIST when added already, EPERM when it cannot be polled (a regular file)
   */
  add(fd: number, events: number, callback: (events: number) => void): void {
    if (this.#closing) throw new BerthError('cancelled', 'the poller is closed');
    const token = ++this.#lastToken;
    epollAdd(this.#epollFd, fd, events | EPOLLONESHOT, token);
    this.#tokens.set(fd, token);
    this.#registrations.set(token, { fd, events, callback });
  }

  /** Stops watching; no callback runs after it. To be called before `fd` is closed. Repeatable. */
  remove(fd: number): void {
    const token = this.#tokens.get(fd);
    if (token === undefined) return;
    this.#tokens.delete(fd);
    this.#registrations.delete(token);
    try {
      epollDelete(this.#epollFd, fd);
    } catch (e: unknown) {
      if (!isErrno(e, 'ENOENT', 'EBADF')) throw e;
    }
  }

  /**
   * Resolves when that very process has exited, at once when it already has (or never was). It need not
   * be a child; a zombie counts as exited.
   *
   * @throws the signal's reason when aborted; BerthError `cancelled` when the poller closes first
   */
  async watchExit(identity: ProcessIdentity, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    signal?.throwIfAborted();
    let pidfd: number;
    try {
      pidfd = pidfdOpen(identity.pid);
    } catch (e: unknown) {
      if (isErrno(e, 'ESRCH')) return;
      throw e;
    }
    try {
      // After the open: only now is it sure whom the descriptor means.
      if (isAlive(identity)) await this.ready(pidfd, EPOLLIN, options);
      // Monitors and pause processes are orphans, which the subreaper inherits.
      reap(pidfd);
    } finally {
      closeSync(pidfd);
    }
  }

  /**
   * Waits for a process that an ended child left to this one (`becomeSubreaper`), and reaps it.
   *
   * @returns its code, or 128 + signal; undefined when it is not this process's child
   * @throws SyscallError ESRCH when there is none; BerthError `cancelled` when the poller closes first
   */
  async orphanExit(pid: number): Promise<number | undefined> {
    const pidfd = pidfdOpen(pid);
    try {
      const already = reap(pidfd);
      if (already !== undefined) return already;
      await this.ready(pidfd, EPOLLIN);
      return reap(pidfd);
    } finally {
      closeSync(pidfd);
    }
  }

  /**
   * Resolves when `fd`, which is not watched yet, is ready for one of `events` or hung up; it is not watched
   * afterwards.
   *
   * @throws the signal's reason when aborted; BerthError `cancelled` when the poller closes first
   */
  async ready(fd: number, events: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const abort = (): void => reject(signal?.reason);
    this.add(fd, events, () => {
      this.remove(fd);
      resolve();
    });
    this.#watches.add(reject);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      await promise;
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#watches.delete(reject);
      this.remove(fd);
    }
  }

  /** Ends the wait; pending `watchExit`s reject, descriptors given to `add` stay open. Repeatable. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    process.off('exit', this.#wake);
    for (const reject of this.#watches) reject(new BerthError('cancelled', 'the poller is closed'));
    for (const fd of this.#tokens.keys()) this.remove(fd);
    this.#wake();
    await this.#ended;
    closeSync(this.#epollFd);
    closeSync(this.#wakeFd);
  }

  readonly #wake = (): void => {
    writeSync(this.#wakeFd, new BigUint64Array([1n]));
  };

  async #wait(): Promise<void> {
    const waiter = new EpollWaiter(this.#epollFd);
    for (;;) {
      const ready = await waiter.wait();
      if (ready.some(({ token }) => token === WAKE_TOKEN)) return;
      this.#dispatch(ready);
    }
  }

  #dispatch(ready: ReadyEvent[]): void {
    for (const { token, events } of ready) {
      const registration = this.#registrations.get(token);
      if (registration === undefined) continue;
      registration.callback(events);
      if (!this.#registrations.has(token)) continue;
      epollModify(this.#epollFd, registration.fd, registration.events | EPOLLONESHOT, token);
    }
  }
}
