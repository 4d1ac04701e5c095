import { constants } from 'node:os';

/** A signal by name, `SIGTERM`, or real-time, `SIGRTMIN+3`. */
export type Signal = string;

const SIGRTMIN = 34;
const SIGRTMAX = 64;

/**
 * The signal that an image's StopSignal or a CRI Signal means: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
 *
 * @returns its number, or undefined when there is no such signal.
 */
export function signalNumber(text: string): number | undefined {
  const name = text.trim().toUpperCase();
  if (/^\d+$/.test(name)) {
    const number = Number(name);
    // 32 and 33 are the C library's own.
    return (number >= 1 && number < 32) || (number >= SIGRTMIN && number <= SIGRTMAX) ? number : undefined;
  }
  const bare = name.startsWith('SIG') ? name.slice(3) : name;
  const realtime = /^RT(MIN\+|MAX-)(\d+)$/.exec(bare) ?? /^RT(MIN|MAX)$/.exec(bare);
  if (realtime !== null) {
    const offset = Number(realtime[2] ?? 0);
    const number = realtime[1]?.startsWith('MIN') ? SIGRTMIN + offset : SIGRTMAX - offset;
    return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
  }
  // The System V spelling of SIGCHLD is in CRI's list but not in Node's.
  const known = bare === 'CLD' ? 'CHLD' : bare;
  return (constants.signals as Record<string, number>)[`SIG${known}`];
}

/**
 * The one name that berth uses for a signal's number: `SIGTERM`, `SIGRTMIN+3`, `SIGRTMAX-2`.
 *
 * @param number a result of {@link signalNumber}
 */
export function signalName(number: number): Signal {
  const plain = Object.entries(constants.signals).find(([, n]) => n === number)?.[0];
  if (plain !== undefined) return plain;
  const middle = (SIGRTMIN + SIGRTMAX) / 2;
  const [end, offset] = number <= middle ? ['MIN', number - SIGRTMIN] : ['MAX', number - SIGRTMAX];
  return `SIGRT${end}${offset === 0 ? '' : offset > 0 ? `+${offset}` : offset}`;
}
