import { check, declare, declareBlocking } from './libc.ts';

/** Event bits of epoll (`include/uapi/linux/eventpoll.h`). Error and hang-up are reported unasked. */
export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
/** The descriptor is disarmed after one event, until `epollModify`. */
export const EPOLLONESHOT = 1 << 30;

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const CLOEXEC = 0o2000000;
const NONBLOCK = 0o4000;

// struct epoll_event is packed on x86_64 only (EPOLL_PACKED in eventpoll.h).
const EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
const MAX_EVENTS = 64;
const EVENT_DATA = process.arch === 'x64' ? 4 : 8;

const cEpollCreate1 = declare<[number]>('epoll_create1', ['int']);
const cEpollCtl = declare<[number, number, number, Buffer | null]>('epoll_ctl', [
  'int',
  'int',
  'int',
  'void *',
]);
const cEpollWait = declare<[number, Buffer, number, number]>('epoll_wait', ['int', 'void *', 'int', 'int']);
const waitOnPool = declareBlocking<[number, Buffer, number, number]>('epoll_wait', [
  'int',
  'void *',
  'int',
  'int',
]);
const cEventfd = declare<[number, number]>('eventfd', ['uint', 'int']);

/** A new epoll descriptor, close-on-exec. @throws SyscallError */
export function epollCreate(): number {
  return check('epoll_create1', cEpollCreate1(CLOEXEC));
}

/** A new eventfd counter at 0, non-blocking and close-on-exec. @throws SyscallError */
export function eventfd(): number {
  return check('eventfd', cEventfd(0, CLOEXEC | NONBLOCK));
}

/** `token` (32 bits) comes back with each event. @throws SyscallError EEXIST; EPERM for a regular file */
export function epollAdd(epollFd: number, fd: number, events: number, token: number): void {
  check('epoll_ctl', cEpollCtl(epollFd, EPOLL_CTL_ADD, fd, encodeEvent(events, token)), String(fd));
}

/** @throws SyscallError ENOENT when it was not added */
export function epollModify(epollFd: number, fd: number, events: number, token: number): void {
  check('epoll_ctl', cEpollCtl(epollFd, EPOLL_CTL_MOD, fd, encodeEvent(events, token)), String(fd));
}

/** @throws SyscallError ENOENT when it was not added, EBADF when it is closed */
export function epollDelete(epollFd: number, fd: number): void {
  check('epoll_ctl', cEpollCtl(epollFd, EPOLL_CTL_DEL, fd, null), String(fd));
}

/** One ready descriptor: the token it was added with and its event bits. */
export interface ReadyEvent {
  token: number;
  events: number;
}

/** Waits for ready descriptors of one epoll descriptor, on a thread of libuv's pool. */
export class EpollWaiter {
  readonly #epollFd: number;
  readonly #buffer = Buffer.alloc(MAX_EVENTS * EVENT_SIZE);

  constructor(epollFd: number) {
    this.#epollFd = epollFd;
  }

  /**
   * What is ready, at most 64 events, when something is; empty when a signal has interrupted the wait. One
   * call at a time; it holds one of the pool's threads for as long as it takes.
   *
   * @throws SyscallError
   */
  async wait(): Promise<ReadyEvent[]> {
    let count = await waitOnPool(this.#epollFd, this.#buffer, MAX_EVENTS, -1);
    // Here the errno can be had; EINTR was the signal.
    if (count < 0) count = check('epoll_wait', cEpollWait(this.#epollFd, this.#buffer, MAX_EVENTS, 0));
    return Array.from({ length: count }, (_, i) => ({
      events: this.#buffer.readUInt32LE(i * EVENT_SIZE),
      token: this.#buffer.readUInt32LE(i * EVENT_SIZE + EVENT_DATA),
    }));
  }
}

function encodeEvent(events: number, token: number): Buffer {
  const event = Buffer.alloc(EVENT_SIZE);
  event.writeUInt32LE(events >>> 0);
  event.writeUInt32LE(token, EVENT_DATA);
  return event;
}
