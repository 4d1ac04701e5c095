import { readFileSync } from 'node:fs';
import { isErrno } from '../errors.ts';
import { pidfdSendSignal, withPidfd } from './pidfd.ts';

/** Names one process for ever; a pid alone names whatever has the number now. */
export interface ProcessIdentity {
  pid: number;
  /** When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`. */
  startTime: bigint;
}

/** What `/proc/<pid>/stat` says that berth needs (proc_pid_stat(5)). */
export interface ProcessStat extends ProcessIdentity {
  command: string;
  /** One letter: R, S, D, Z (zombie), X (dead), T … */
  state: string;
  ppid: number;
}

/** Parses a stat line; undefined when it has not that form. The command may itself contain `) ` and spaces. */
export function parseProcessStat(line: string): ProcessStat | undefined {
  const open = line.indexOf('(');
  const close = line.lastIndexOf(')');
  if (open < 0 || close < open) return undefined;
  const fields = line.slice(close + 2).split(' ');
  const state = fields[0];
  const ppid = fields[1];
  const startTime = fields[19];
  if (state === undefined || ppid === undefined || startTime === undefined) return undefined;
  if (!/^\d+$/.test(startTime)) return undefined;
  return {
    pid: Number.parseInt(line, 10),
    command: line.slice(open + 1, close),
    state,
    ppid: Number(ppid),
    startTime: BigInt(startTime),
  };
}

/** The stat of a process, undefined when there is none. */
export function readProcessStat(pid: number): ProcessStat | undefined {
  try {
    return parseProcessStat(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch (e: unknown) {
    // ESRCH: the process went between open and read.
    if (isErrno(e, 'ENOENT', 'ESRCH')) return undefined;
    throw e;
  }
}

/** The identity of the process that has this pid now, a zombie too; undefined when there is none. */
export function identify(pid: number): ProcessIdentity | undefined {
  const stat = readProcessStat(pid);
  return stat && { pid, startTime: stat.startTime };
}

/** True while that very process runs; a zombie has ended, it only waits for its parent. */
export function isAlive(identity: ProcessIdentity): boolean {
  const stat = readProcessStat(identity.pid);
  return stat !== undefined && stat.startTime === identity.startTime && !ENDED.has(stat.state);
}

const ENDED: ReadonlySet<string> = new Set(['Z', 'X', 'x']);

/**
 * Sends a signal to that very process, false when it is gone. The pidfd is opened first and the start
 * time read second: from then on the descriptor cannot come to mean a process that reused the number.
 * Signal 0 only asks.
 *
 * @throws SyscallError EPERM
 */
export function signal(identity: ProcessIdentity, sig: NodeJS.Signals | number): boolean {
  try {
    return withPidfd(identity.pid, (fd) => {
      if (!isAlive(identity)) return false;
      pidfdSendSignal(fd, sig);
      return true;
    });
  } catch (e: unknown) {
    if (isErrno(e, 'ESRCH')) return false;
    throw e;
  }
}
