import { isErrno } from '../errors.ts';
import { check, declare } from './libc.ts';

/** Event bits of epoll (`include/uapi/linux/eventpoll.h`). Error and hang-up are reported unasked. */
export const EPOLLIN = 0x001;
export const EPOLLPRI = 0x002;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLRDHUP = 0x2000;
/** The descriptor is disarmed after one event, until `epollModify`. */
export const EPOLLONESHOT = 1 << 30;

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const CLOEXEC = 0o2000000;
const NONBLOCK = 0o4000;

// struct epoll_event is packed on x86_64 only (EPOLL_PACKED in eventpoll.h).
const EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
const EVENT_DATA = process.arch === 'x64' ? 4 : 8;

const cEpollCreate1 = declare<[number]>('epoll_create1', ['int']);
const cEpollCtl = declare<[number, number, number, Buffer | null]>('epoll_ctl', [
  'int',
  'int',
  'int',
  'void *',
]);
const cEpollWait = declare<[number, Buffer, number, number]>('epoll_wait', ['int', 'void *', 'int', 'int']);
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

/**
 * Blocks the calling thread until something is ready, for ever; at most 64 events a call. A signal that
 * interrupts the wait answers an empty list.
 *
 * @throws SyscallError
 */
export function epollWait(epollFd: number): ReadyEvent[] {
  const buffer = Buffer.alloc(64 * EVENT_SIZE);
  let count: number;
  try {
    count = check('epoll_wait', cEpollWait(epollFd, buffer, 64, -1));
  } catch (e: unknown) {
    if (isErrno(e, 'EINTR')) return [];
    throw e;
  }
  return Array.from({ length: count }, (_, i) => ({
    events: buffer.readUInt32LE(i * EVENT_SIZE),
    token: buffer.readUInt32LE(i * EVENT_SIZE + EVENT_DATA),
  }));
}

function encodeEvent(events: number, token: number): Buffer {
  const event = Buffer.alloc(EVENT_SIZE);
  event.writeUInt32LE(events >>> 0);
  event.writeUInt32LE(token, EVENT_DATA);
  return event;
}
