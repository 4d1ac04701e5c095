import { type AgentEvent, MAX_TEXT } from '../protocol/messages.ts';
import type { Log } from './machine.ts';

/** Messages that are passed on at once, and the time for one more, milliseconds. */
const BURST = 100;
const REFILL_MS = 1_000;

/** What the agent logs, in the daemon's log: a guest is not believed, and must not fill the node's disk with it. */
export class GuestLog {
  readonly #log: Log;
  readonly #now: () => number;
  #left = BURST;
  #refilled: number;

  /** @param now a clock that only goes on, milliseconds */
  constructor(log: Log, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
    this.#refilled = now();
  }

  take({ level, message }: AgentEvent & { event: 'log' }): void {
    const more = Math.floor((this.#now() - this.#refilled) / REFILL_MS);
    this.#refilled += more * REFILL_MS;
    this.#left = Math.min(this.#left + more, BURST);
    if (this.#left === 0) return;
    this.#left--;
    this.#log(level === 'debug' ? 'debug' : 'warn', `agent: ${message.slice(0, MAX_TEXT)}`);
    if (this.#left === 0) this.#log('warn', 'agent: it says too much, so some of it is left out');
  }
}
