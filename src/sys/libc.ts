import { constants } from 'node:os';
import koffi from 'koffi';

/**
 * The one place that loads the C library. Each file of this folder declares the functions it needs with
 * `declare` and turns a failure into a SyscallError with `check`; nothing outside `src/sys` calls libc.
 *
 * Structures are laid out by hand in Buffers, little-endian: x86_64 and arm64 are the supported
 * architectures, and both are. System call numbers are used only where glibc 2.36 (Debian 12) has no
 * wrapper; those from 424 on are the same on every architecture (`include/uapi/asm-generic/unistd.h`).
 */

/** A path for a system call: text, or the raw bytes of a name that is not valid UTF-8 (without the NUL). */
export type CPath = string | Buffer;

/** What may be handed to a declared function; a pointer is a Buffer or null. */
export type CArgument = number | bigint | string | Buffer | null;

/** A failed system call; `code` is the errno's name, as with Node's own system errors. */
export class SyscallError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly path?: string;

  constructor(syscall: string, errno: number, path?: CPath) {
    const code = ERRNO_NAMES.get(errno) ?? `ERRNO_${errno}`;
    super(path === undefined ? `${syscall}: ${code}` : `${syscall} ${path}: ${code}`);
    this.name = 'SyscallError';
    this.code = code;
    // Node's system errors carry the negative number; one convention for both.
    this.errno = -errno;
    this.syscall = syscall;
    if (path !== undefined) this.path = String(path);
  }
}

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  // Reversed, so that of two names for a number the first wins: EAGAIN, not EWOULDBLOCK.
  Object.entries(constants.errno)
    .reverse()
    .map(([name, number]) => [number, name]),
);

const library = koffi.load(null);

/**
 * A C function that answers int or long, -1 meaning failure. Types are koffi's; `syscall`'s variadic
 * arguments may be declared as plain ones, because both calling conventions pass them alike.
 *
 * @throws SyscallError EINVAL for text with a NUL byte: C would silently use a shorter path.
 */
export function declare<A extends CArgument[]>(
  name: string,
  argumentTypes: string[],
  result: 'int' | 'long' | 'uint' = 'int',
): (...args: A) => number {
  // Looked up when it is first called: of the functions that a program declares it calls few.
  let call: ((...args: CArgument[]) => unknown) | undefined;
  return (...args) => {
    call ??= library.func(name, result, argumentTypes);
    for (const arg of args) {
      if (typeof arg === 'string' && arg.includes('\0'))
        throw new SyscallError(name, constants.errno.EINVAL, arg);
    }
    return Number(call(...args));
  };
}

/**
 * The same on one of libuv's threads, for a call that waits. Its errno is that thread's and is lost, so this
 * is for functions whose result says enough.
 */
export function declareBlocking<A extends CArgument[]>(
  name: string,
  argumentTypes: string[],
): (...args: A) => Promise<number> {
  let made: AsyncFunction | undefined;
  return (...args) =>
    new Promise((resolve, reject) => {
      made ??= library.func(name, 'int', argumentTypes) as unknown as AsyncFunction;
      made.async(...args, (e: unknown, result: number) => (e ? reject(e) : resolve(result)));
    });
}

/** koffi's own type for it takes anything. */
interface AsyncFunction {
  async(...args: [...CArgument[], (e: unknown, result: number) => void]): void;
}

/**
 * `result` unless it is negative; then throws with the errno of the call just made. Nothing may run
 * between the call and this, so it always wraps the call directly.
 *
 * @throws SyscallError
 */
export function check(syscall: string, result: number, path?: CPath): number {
  if (result < 0) throw new SyscallError(syscall, koffi.errno(), path);
  return result;
}

/** As the C side wants it: raw bytes get their NUL. @throws SyscallError EINVAL when they contain one */
export function cPath(path: CPath): string | Buffer {
  if (typeof path === 'string') return path;
  if (path.includes(0)) throw new SyscallError('path', constants.errno.EINVAL, path);
  return Buffer.concat([path, NUL]);
}

const NUL = Buffer.alloc(1);

/**
 * Where a buffer's bytes lie, for structures that hold pointers. The caller keeps the buffer alive during
 * the call; V8 does not move the memory of buffers.
 */
export function addressOf(buffer: Buffer): bigint {
  return koffi.address(buffer);
}

/** A signal's number from its name, such as `SIGTERM`. */
export function signalNumber(signal: NodeJS.Signals | number): number {
  return typeof signal === 'number' ? signal : constants.signals[signal];
}
