import { ConnectionError, ErrorCode } from './errors.ts';

/** What a peer may send before it is told of more (RFC 9113, 5.2), of a stream or of the connection. */
export class ReceiveWindow {
  readonly #size: number;
  #left: number;
  /** Taken and dealt with, but not given back yet. */
  #owed = 0;

  /** @param size bytes */
  constructor(size: number) {
    this.#size = size;
    this.#left = size;
  }

  /** @throws ConnectionError FLOW_CONTROL_ERROR when the peer sends more than it may */
  take(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'more data than the window');
  }

  /**
   * Tells that so many of the taken bytes need no room any more.
   *
   * @returns what the peer is to be told now, which is 0 until it is worth a frame
   */
  free(bytes: number): number {
    this.#owed += bytes;
    if (this.#owed * 2 < this.#size) return 0;
    const increment = this.#owed;
    this.#owed = 0;
    this.#left += increment;
    return increment;
  }
}
