import { randomBytes } from 'node:crypto';
import { BerthError } from '../errors.ts';

/** How long a token is good for, milliseconds; a client asks for a URL to use it at once. */
export const TOKEN_TTL_MS = 60_000;
/** Tokens that wait to be used. */
export const MAX_TOKENS = 1000;
const TOKEN_BYTES = 24;

/** Keeps what a URL stands for until it is used, once, or its time is over. */
export class TokenStore<T> {
  readonly #waiting = new Map<string, { value: T; expires: number }>();
  readonly #now: () => number;

  /** @param now a monotonic clock in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /**
   * @returns the token: unguessable, of letters that a URL's path can have
   * @throws BerthError `exhausted` when too many wait
   */
  put(value: T): string {
    this.#expire();
    if (this.#waiting.size >= MAX_TOKENS) {
      throw new BerthError('exhausted', `${MAX_TOKENS} streaming requests wait to be picked up already`);
    }
    const token = randomBytes(TOKEN_BYTES).toString('base64url');
    this.#waiting.set(token, { value, expires: this.#now() + TOKEN_TTL_MS });
    return token;
  }

  /** The value, and forgets it; undefined for what is unknown, used or too old. */
  take(token: string): T | undefined {
    this.#expire();
    const entry = this.#waiting.get(token);
    this.#waiting.delete(token);
    return entry?.value;
  }

  /** Tokens are in the order of their making, so of their ends. */
  #expire(): void {
    const now = this.#now();
    for (const [token, { expires }] of this.#waiting) {
      if (expires > now) return;
      this.#waiting.delete(token);
    }
  }
}
