import { isErrno } from '../errors.ts';
import { check, declare } from './libc.ts';

const PR_SET_CHILD_SUBREAPER = 36;
const P_ALL = 0;
const P_PID = 1;
const P_PIDFD = 3;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x01000000;
const CLD_EXITED = 1;
/** What shells add to the number of a signal that ended a process. */
const SIGNALLED = 128;
// struct siginfo of 64-bit Linux (include/uapi/asm-generic/siginfo.h): the SIGCHLD part starts at 16.
const SIGINFO_SIZE = 128;
const SI_CODE = 8;
const SI_PID = 16;
const SI_STATUS = 24;

const cPrctl = declare<[number, number, number, number, number]>('prctl', [
  'int',
  'ulong',
  'ulong',
  'ulong',
  'ulong',
]);
const cWaitid = declare<[number, number, Buffer, number]>('waitid', ['int', 'uint', 'void *', 'int']);

/**
 * Makes this process the parent of every descendant whose own parent ends (prctl(2)
 * PR_SET_CHILD_SUBREAPER), so that the exit status of a process that an OCI runtime started with
 * `--detach` can be read, and none stays a zombie. When this process ends, they go to the next reaper above.
 *
 * @throws SyscallError
 */
export function becomeSubreaper(): void {
  check('prctl', cPrctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}

/**
 * Reaps the process of a pidfd if it has ended and is this process's child, and answers its code
 * (128 + signal for one that a signal ended); undefined when it runs, is not a child, or is reaped already.
 */
export function reap(pidfd: number): number | undefined {
  return wait(P_PIDFD, pidfd, WEXITED | WNOHANG)?.code;
}

/**
 * Reaps what nobody waits for: children of commands that were run in a container with the host's PID
 * namespace, or what a killed helper left. Node waits for its own children by pid within moments, and
 * `waitForOrphan` for its; so what is found ended at two looks in a row has nobody.
 */
export class OrphanSweeper {
  readonly #timer: NodeJS.Timeout;
  #suspect = 0;

  constructor(intervalMs: number) {
    this.#timer = setInterval(() => this.look(), intervalMs);
    this.#timer.unref();
  }

  /** One look; public for tests. */
  look(): void {
    for (;;) {
      const pid = wait(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT)?.pid ?? 0;
      if (pid === 0 || pid !== this.#suspect) {
        this.#suspect = pid;
        return;
      }
      wait(P_PID, pid, WEXITED | WNOHANG);
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/** How a process ended: 128 + signal for one that a signal ended. */
export interface Ended {
  pid: number;
  code: number;
  signal?: number;
}

/** A child that has ended, which stays to be reaped; undefined when there is none. */
export function endedChild(): Ended | undefined {
  return wait(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT);
}

/** Reaps a child that has ended; undefined when it runs or is none. */
export function reapChild(pid: number): Ended | undefined {
  return wait(P_PID, pid, WEXITED | WNOHANG);
}

function wait(idType: number, id: number, options: number): Ended | undefined {
  const info = Buffer.alloc(SIGINFO_SIZE);
  try {
    check('waitid', cWaitid(idType, id, info, options));
  } catch (e: unknown) {
    if (isErrno(e, 'ECHILD')) return undefined;
    throw e;
  }
  const pid = info.readInt32LE(SI_PID);
  if (pid === 0) return undefined;
  const status = info.readInt32LE(SI_STATUS);
  if (info.readInt32LE(SI_CODE) === CLD_EXITED) return { pid, code: status };
  return { pid, code: SIGNALLED + status, signal: status };
}
