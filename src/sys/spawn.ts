import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { addressOf, check, declare, SyscallError } from './libc.ts';
import { childPipe } from './pipe.ts';

/**
 * Where a child's descriptor leads: /dev/null, a pipe that the child reads (`in`) or writes (`out`), or a
 * descriptor of this process.
 */
export type ChildStdio = 'ignore' | 'in' | 'out' | number;

export interface SpawnOptions {
  /** The whole environment; members that are undefined are left out. */
  env: Readonly<Record<string, string | undefined>>;
  cwd?: string | undefined;
  /** Descriptors 0, 1, 2, … of the child. */
  stdio: readonly ChildStdio[];
}

/** How a process ended: by a code or by a signal; neither when it is not known. */
export interface ExitStatus {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A process that this one has started. */
export interface Child {
  /** It leads a session and a process group of this number. */
  readonly pid: number;
  /** This process's ends of the pipes, by the child's descriptor. */
  readonly pipes: readonly (Socket | undefined)[];
  /** Resolves when it has ended and been reaped; never rejects. */
  readonly exited: Promise<ExitStatus>;
  /** From the moment it has been reaped its number may come to mean another process. */
  readonly reaped: boolean;
}

const WNOHANG = 1;
const O_RDWR = 2;
const F_DUPFD_CLOEXEC = 1030;
// glibc's <spawn.h>.
const SETSIGDEF = 0x04;
const SETSIGMASK = 0x08;
const SETSID = 0x80;
/** More than glibc's posix_spawnattr_t (336 bytes) and posix_spawn_file_actions_t (80) on 64-bit machines. */
const OPAQUE_SIZE = 512;
const SIGSET_SIZE = 128;
const POINTER_SIZE = 8;
const WAIT_STATUS_SIZE = 4;

const cActionsInit = declare<[Buffer]>('posix_spawn_file_actions_init', ['void *']);
const cActionsDestroy = declare<[Buffer]>('posix_spawn_file_actions_destroy', ['void *']);
const cAddDup2 = declare<[Buffer, number, number]>('posix_spawn_file_actions_adddup2', [
  'void *',
  'int',
  'int',
]);
const cAddOpen = declare<[Buffer, number, string, number, number]>('posix_spawn_file_actions_addopen', [
  'void *',
  'int',
  'const char *',
  'int',
  'uint',
]);
const cAddChdir = declare<[Buffer, string]>('posix_spawn_file_actions_addchdir_np', [
  'void *',
  'const char *',
]);
const cAttrInit = declare<[Buffer]>('posix_spawnattr_init', ['void *']);
const cAttrSetFlags = declare<[Buffer, number]>('posix_spawnattr_setflags', ['void *', 'short']);
const cAttrSetDefault = declare<[Buffer, Buffer]>('posix_spawnattr_setsigdefault', ['void *', 'void *']);
const cAttrSetMask = declare<[Buffer, Buffer]>('posix_spawnattr_setsigmask', ['void *', 'void *']);
const cSpawn = declare<[Buffer, string, Buffer, Buffer, Buffer, Buffer]>('posix_spawnp', [
  'void *',
  'const char *',
  'void *',
  'void *',
  'void *',
  'void *',
]);
const cWaitpid = declare<[number, Buffer, number]>('waitpid', ['int', 'void *', 'int']);
const cFcntl = declare<[number, number, number]>('fcntl', ['int', 'int', 'int']);

const SIGNAL_NAMES = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals]),
);

/**
 * Who waits for which child. SIGCHLD is for the whole process, and so is this; Node's own children are not
 * in it, and are reaped by Node.
 */
const waiting = new Map<number, (status: ExitStatus) => void>();

/**
 * Starts a program, in a session of its own, by posix_spawn(3).
 *
 * Node's `spawn` forks: it copies the page tables of a process of 70 MB, after which every page that the
 * parent touches faults, and holds the event loop for 3 to 8 ms of it. posix_spawn shares the memory until
 * the exec and takes 0.1 ms, however large the parent is; a pod's life is nine programs.
 *
 * @param program a path, or a name to be looked up in PATH
 * @throws SyscallError when it cannot be started (ENOENT, EACCES, ETXTBSY, EMFILE); EINVAL for a NUL byte
 */
export function spawnChild(program: string, args: readonly string[], options: SpawnOptions): Child {
  if (!process.listeners('SIGCHLD').includes(reapEnded)) process.on('SIGCHLD', reapEnded);
  const pipes: (Socket | undefined)[] = [];
  const own: number[] = [];
  try {
    const fds = options.stdio.map((stdio, slot) => {
      if (stdio === 'ignore') return undefined;
      if (typeof stdio === 'number') {
        // Below the slots it would be overwritten before its turn.
        if (stdio >= options.stdio.length || stdio === slot) return stdio;
        own.push(check('fcntl', cFcntl(stdio, F_DUPFD_CLOEXEC, options.stdio.length)));
        return own.at(-1);
      }
      const pipe = childPipe(stdio);
      pipes[slot] = pipe.stream;
      own.push(pipe.childFd);
      return pipe.childFd;
    });
    const pid = posixSpawn(program, args, options, fds);
    const { promise: exited, resolve } = Promise.withResolvers<ExitStatus>();
    waiting.set(pid, resolve);
    return {
      pid,
      pipes,
      exited,
      get reaped() {
        return waiting.get(pid) !== resolve;
      },
    };
  } catch (e: unknown) {
    for (const pipe of pipes) pipe?.destroy();
    throw e;
  } finally {
    for (const fd of own) closeSync(fd);
  }
}

function posixSpawn(
  program: string,
  args: readonly string[],
  { env, cwd }: SpawnOptions,
  fds: readonly (number | undefined)[],
): number {
  const variables = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const argv = new StringArray([program, ...args]);
  const envp = new StringArray(variables.map(([name, value]) => `${name}=${value}`));
  const actions = Buffer.alloc(OPAQUE_SIZE);
  const pid = Buffer.alloc(4);
  succeed('posix_spawn_file_actions_init', cActionsInit(actions));
  try {
    for (const [slot, fd] of fds.entries()) {
      // To itself, too: it clears close-on-exec.
      if (fd === undefined) succeed('addopen', cAddOpen(actions, slot, '/dev/null', O_RDWR, 0));
      else succeed('adddup2', cAddDup2(actions, fd, slot));
    }
    if (cwd !== undefined) succeed('addchdir', cAddChdir(actions, cwd));
    const attributes = spawnAttributes();
    succeed('posix_spawn', cSpawn(pid, program, actions, attributes, argv.pointers, envp.pointers), program);
    return pid.readInt32LE(0);
  } finally {
    cActionsDestroy(actions);
  }
}

/** A new session, no signal blocked, and none ignored: Node ignores SIGPIPE. */
function spawnAttributes(): Buffer {
  const attributes = Buffer.alloc(OPAQUE_SIZE);
  succeed('posix_spawnattr_init', cAttrInit(attributes));
  succeed('posix_spawnattr_setflags', cAttrSetFlags(attributes, SETSID | SETSIGDEF | SETSIGMASK));
  succeed('posix_spawnattr_setsigdefault', cAttrSetDefault(attributes, Buffer.alloc(SIGSET_SIZE, 0xff)));
  succeed('posix_spawnattr_setsigmask', cAttrSetMask(attributes, Buffer.alloc(SIGSET_SIZE)));
  return attributes;
}

/** The functions of <spawn.h> return the errno instead of setting it. */
function succeed(what: string, errno: number, path?: string): void {
  if (errno !== 0) throw new SyscallError(what, errno, path);
}

/** C's `char *x[]`, with the null pointer at its end. Alive as long as this object is. */
class StringArray {
  readonly pointers: Buffer;
  readonly strings: Buffer;

  constructor(texts: readonly string[]) {
    for (const text of texts) {
      if (text.includes('\0')) throw new SyscallError('posix_spawn', constants.errno.EINVAL, text);
    }
    const encoded = texts.map((text) => Buffer.from(`${text}\0`));
    this.strings = Buffer.concat([...encoded, Buffer.alloc(1)]);
    this.pointers = Buffer.alloc((texts.length + 1) * POINTER_SIZE);
    let at = addressOf(this.strings);
    for (const [index, { length }] of encoded.entries()) {
      this.pointers.writeBigUInt64LE(at, index * POINTER_SIZE);
      at += BigInt(length);
    }
  }
}

/** One SIGCHLD may stand for several ends. */
function reapEnded(): void {
  const status = Buffer.alloc(WAIT_STATUS_SIZE);
  for (const [pid, resolve] of waiting) {
    const ended = cWaitpid(pid, status, WNOHANG);
    if (ended === 0) continue;
    waiting.delete(pid);
    // ECHILD, if anything: somebody else has reaped it, and how it ended is not known.
    resolve(ended === pid ? decodeStatus(status.readInt32LE(0)) : { code: null, signal: null });
  }
}

/** wait(2): the signal in the low seven bits, or else the code in the next byte. */
function decodeStatus(status: number): ExitStatus {
  const signal = status & 0x7f;
  if (signal === 0) return { code: (status >> 8) & 0xff, signal: null };
  return { code: null, signal: SIGNAL_NAMES.get(signal) ?? 'SIGKILL' };
}
