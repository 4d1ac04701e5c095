import type { Method } from '../../proto/codec.ts';

/** One call, as the function that serves it sees it: messages of type I come, messages of type O go. */
export interface ServerCall<I, O> {
  /** Aborted with a BerthError, `cancelled` when the caller has gone, `deadline` when its deadline has passed. */
  readonly signal: AbortSignal;
  /**
   * The request of an RPC that has one.
   *
   * @throws BerthError when it is none, or not one
   */
  request(): Promise<I>;
  /** The requests of an RPC with many; a caller that is not read waits. To be read once. Throws like `request`. */
  requests(): AsyncIterable<I>;
  /** Tells the caller that it has been heard, before there is an answer. */
  sendHeaders(): void;
  /**
   * Sends an answer, encoded already or not.
   *
   * @returns a promise of the moment at which it is on its way
   * @throws BerthError `exhausted` when it is too large
   */
  send(message: O | Buffer): Promise<void>;
}

/** Serves calls; resolves for OK, rejects for any other status. */
export type Rpc<I = never, O = unknown> = (call: ServerCall<I, O>) => Promise<void>;

/** An RPC's place and code, and who serves it. */
export interface Route {
  readonly method: Method;
  readonly rpc: Rpc;
}
