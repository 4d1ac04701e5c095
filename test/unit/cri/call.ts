import type { ServerCall } from '../../../cri/grpc/rpc.ts';
import { BerthError } from '../../../src/errors.ts';

/** A call as the server hands it to an RPC's function, without a wire. */
export class FakeCall implements ServerCall<unknown, unknown> {
  readonly sent: unknown[] = [];
  hasHeaders = false;
  /** What a message waits for until it is on its way. */
  pace: Promise<void> = Promise.resolve();
  readonly #requests: readonly unknown[];
  readonly #abort = new AbortController();

  constructor(...requests: readonly unknown[]) {
    this.#requests = requests;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  async request(): Promise<unknown> {
    return this.#requests[0];
  }

  async *requests(): AsyncGenerator<unknown> {
    yield* this.#requests;
  }

  sendHeaders(): void {
    this.hasHeaders = true;
  }

  async send(message: unknown): Promise<void> {
    this.sent.push(message);
    await this.pace;
  }

  /** The caller goes. */
  cancel(): void {
    this.#abort.abort(new BerthError('cancelled', 'the caller has gone'));
  }

  /** The caller's deadline passes. */
  pass(): void {
    this.#abort.abort(new BerthError('deadline', "the caller's deadline has passed"));
  }
}
