import { closeSync } from 'node:fs';
import { check, declare } from './libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const MSG_DONTWAIT = 0x40;
/** `sun_path` of unix(7) has 108 bytes. */
const SUN_PATH = 108;

const cSocket = declare<[number, number, number]>('socket', ['int', 'int', 'int']);
const cSendto = declare<[number, Buffer, number, number, Buffer, number]>(
  'sendto',
  ['int', 'const void *', 'size_t', 'int', 'const void *', 'uint'],
  'long',
);

/**
 * Tells the service manager how the daemon is (sd_notify(3)): one datagram of `NAME=value` lines to
 * `$NOTIFY_SOCKET`. Without a socket every call does nothing.
 */
export class ServiceNotifier {
  readonly #socket: string | undefined;
  readonly #watchdogUsec: number;

  /** `env` is the daemon's environment, with NOTIFY_SOCKET and WATCHDOG_USEC. */
  constructor(env: Record<string, string | undefined>) {
    this.#socket = env.NOTIFY_SOCKET || undefined;
    this.#watchdogUsec = Number(env.WATCHDOG_USEC ?? 0) || 0;
  }

  /**
   * How often to call `watchdog`, in milliseconds: half of what the unit allows, as sd_watchdog_enabled(3)
   * advises. Undefined when no watchdog is set.
   */
  get watchdogIntervalMs(): number | undefined {
    if (this.#socket === undefined || this.#watchdogUsec <= 0) return undefined;
    return Math.max(1, Math.floor(this.#watchdogUsec / 2000));
  }

  /** The daemon serves. @throws SyscallError when the manager's socket does not take it */
  ready(): void {
    this.#send(`READY=1\nMAINPID=${process.pid}`);
  }

  /** The daemon is alive. @throws SyscallError */
  watchdog(): void {
    this.#send('WATCHDOG=1');
  }

  /** The daemon ends. @throws SyscallError */
  stopping(): void {
    this.#send('STOPPING=1');
  }

  #send(state: string): void {
    if (this.#socket === undefined) return;
    const message = Buffer.from(state);
    const address = unixAddress(this.#socket);
    const fd = check('socket', cSocket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0));
    try {
      const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
      check('sendto', cSendto(fd, message, message.length, flags, address, address.length), this.#socket);
    } finally {
      closeSync(fd);
    }
  }
}

/** A `sockaddr_un`; a leading `@` stands for the NUL of the abstract namespace, whose length counts. */
function unixAddress(socket: string): Buffer {
  const path = Buffer.from(socket);
  if (path.length >= SUN_PATH) throw new RangeError(`NOTIFY_SOCKET is longer than ${SUN_PATH - 1} bytes`);
  const abstract = socket.startsWith('@');
  if (abstract) path[0] = 0;
  const address = Buffer.alloc(2 + path.length + (abstract ? 0 : 1));
  address.writeUInt16LE(AF_UNIX);
  path.copy(address, 2);
  return address;
}
