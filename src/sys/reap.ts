import { readdirSync, readFileSync } from 'node:fs';
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
 * Looks at which a process must have ended to count as nobody's: its OCI runtime may still be on its way to tell who
 * it is, on a busy machine for a second or two.
 */
const LOOKS = 4;

/**
 * Reaps what nobody waits for: children of commands that were run in a container with the host's PID
 * namespace, or what a killed helper left. Node waits for its own children by pid within moments, and
 * `waitForOrphan` for its; so what is found ended again and again has nobody. All of it is reaped at once: a
 * container cannot end as long as one such process is in its PID namespace (pid_namespaces(7)).
 */
export class OrphanSweeper {
  readonly #timer: NodeJS.Timeout;
  /** At how many looks in a row each has been found. */
  #suspects = new Map<number, number>();

  constructor(intervalMs: number) {
    this.#timer = setInterval(() => this.look(), intervalMs);
    this.#timer.unref();
  }

  /** One look; public for tests. */
  look(): void {
    const found = new Map<number, number>();
    // There is hardly ever one, and this alone tells without reading files.
    if (endedChild() !== undefined) {
      for (const pid of endedChildren()) {
        const looks = (this.#suspects.get(pid) ?? 0) + 1;
        if (looks >= LOOKS) reapChild(pid);
        else found.set(pid, looks);
      }
    }
    this.#suspects = found;
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/** All children that have ended and are not reaped; each thread has children of its own (proc_pid_tid_children(5)). */
function endedChildren(): number[] {
  const pids = readdirSync('/proc/self/task').flatMap((thread) =>
    readOrEmpty(`/proc/self/task/${thread}/children`).split(' ').filter(Boolean),
  );
  return pids.filter((pid) => /\) Z /.test(readOrEmpty(`/proc/${pid}/stat`))).map(Number);
}

/** A thread or process may go at any moment. */
function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
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
