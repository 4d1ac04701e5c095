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
    return number >= 1 && number <= SIGRTMAX ? number : undefined;
  }
  const bare = name.startsWith('SIG') ? name.slice(3) : name;
  const realtime = /^RT(MIN\+|MAX-)(\d+)$/.exec(bare) ?? /^RT(MIN|MAX)$/.exec(bare);
  if (realtime !== null) {
    const offset = Number(realtime[2] ?? 0);
    const number = realtime[1]?.startsWith('MIN') ? SIGRTMIN + offset : SIGRTMAX - offset;
    return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
  }
  return (constants.signals as Record<string, number>)[`SIG${bare}`];
}
