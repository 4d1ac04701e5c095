import type { Duplex } from 'node:stream';
import * as z from 'zod/mini';
import { BerthError, during, messageOf } from '../../errors.ts';
import { MuxDuplex, type MuxDuplexOptions } from '../channel/mux-duplex.ts';
import { runMux } from '../channel/run-mux.ts';
import {
  type AgentEvent,
  checkEvent,
  checkParams,
  checkResult,
  MAX_TEXT,
  type Method,
  type Params,
  type Result,
  responseShape,
} from '../protocol/messages.ts';
import type { Mux } from '../protocol/mux.ts';
import { PROTOCOL_VERSION } from '../protocol/names.ts';
import { errorKind } from './error-kind.ts';

/** How long the agent may take for a call, milliseconds; under emulation the slowest take a second or two. */
const CALL_TIMEOUT_MS = 60_000;
const MAX_ID = 2 ** 32 - 1;

/** A byte stream to or from the guest; data may be written once the call that names its id was made. */
export type AgentStream = MuxDuplex;

/**
 * The host's side of the connection to the agent in a virtual machine. Nothing that the guest says is
 * believed without a look at its shape; one that breaks the protocol loses its connection.
 */
export class AgentClient {
  readonly #mux: Mux;
  readonly #pending = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #listeners = new Set<(event: AgentEvent) => void>();
  readonly #closed = Promise.withResolvers<Error | undefined>();
  readonly #transport: Duplex;
  #hello: Result<'hello'> | undefined;
  #nextCall = 1;
  #nextStream = 1;
  #problem: BerthError | undefined;
  #closing = false;

  private constructor(transport: Duplex) {
    this.#transport = transport;
    this.#mux = runMux(
      transport,
      { response: (id, message) => this.#answer(id, message), event: (message) => this.#tell(message) },
      (reason) => this.#end(reason),
    );
  }

  /**
   * Says hello to the agent over an open byte stream, which from then on belongs to this object, also when
   * it fails.
   *
   * @throws BerthError `unavailable` when the connection ends first, `precondition` for an agent of another
   *   version; the signal's reason
   */
  static async connect(transport: Duplex, signal: AbortSignal): Promise<AgentClient> {
    const client = new AgentClient(transport);
    try {
      client.#hello = await client.call('hello', { version: PROTOCOL_VERSION }, signal);
      if (client.#hello.version !== PROTOCOL_VERSION) {
        const { version } = client.#hello;
        throw new BerthError(
          'precondition',
          `the guest image's agent speaks version ${version}, this berth ${PROTOCOL_VERSION}: run "berth vm build-guest"`,
        );
      }
      return client;
    } catch (e: unknown) {
      client.close();
      throw e;
    }
  }

  /** What the agent said of its machine when the connection was made. */
  get hello(): Result<'hello'> {
    if (this.#hello === undefined) throw new Error('no hello yet');
    return this.#hello;
  }

  /** Resolves when the connection has ended: with undefined when {@link close} did it, else with why. */
  get closed(): Promise<Error | undefined> {
    return this.#closed.promise;
  }

  /**
   * Calls a method of the agent; it has 60 s. A call that was given up may still be carried out.
   *
   * @throws BerthError of the agent's kind; `unavailable` when the connection has ended or ends first;
   *   `deadline`; `invalid` for params over the limit of a frame; the signal's reason
   */
  async call<M extends Method>(method: M, params: Params<M>, signal?: AbortSignal): Promise<Result<M>> {
    signal?.throwIfAborted();
    if (this.#problem !== undefined) throw this.#problem;
    const id = this.#nextCall;
    this.#nextCall = id === MAX_ID ? 1 : id + 1;
    const pending = Promise.withResolvers<unknown>();
    const abort = () => pending.reject(signal?.reason);
    const timer = setTimeout(
      () => pending.reject(new BerthError('deadline', `no answer within ${CALL_TIMEOUT_MS / 1000} s`)),
      CALL_TIMEOUT_MS,
    );
    this.#pending.set(id, pending);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      this.#request(id, method, params);
      return resultOf(method, await pending.promise);
    } catch (e: unknown) {
      if (signal?.aborted === true && e === signal.reason) throw e;
      throw during(`guest agent: ${method}`, e);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      this.#pending.delete(id);
    }
  }

  /**
   * A new stream, whose id a call then tells to the agent. When that call fails, the agent ends the stream.
   *
   * @throws BerthError `unavailable` when the connection has ended, `exhausted` when too many are open
   */
  openStream(options: MuxDuplexOptions = {}): AgentStream {
    if (this.#problem !== undefined) throw this.#problem;
    const id = this.#nextStream;
    this.#nextStream = id === MAX_ID ? 1 : id + 1;
    try {
      return new MuxDuplex(this.#mux, id, options);
    } catch (e: unknown) {
      throw new BerthError('exhausted', `guest agent: ${messageOf(e)}`, { cause: e });
    }
  }

  /** Events from now on. @returns ends that */
  onEvent(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Ends the connection, and with it the guest, which stores and powers off. Repeatable. */
  close(): void {
    this.#closing = true;
    this.#transport.destroy();
  }

  #request(id: number, method: Method, params: unknown): void {
    try {
      // The agent does not: under emulation that would be slow.
      this.#mux.request(id, { method, params: checkParams(method, params) });
    } catch (e: unknown) {
      throw new BerthError('invalid', messageOf(e), { cause: e });
    }
  }

  #answer(id: number, message: unknown): void {
    // Absent: the call was given up.
    this.#pending.get(id)?.resolve(message);
  }

  #tell(message: unknown): void {
    const event = checkEvent(message);
    for (const listener of [...this.#listeners]) listener(event);
  }

  #end(reason: string): void {
    this.#problem = new BerthError('unavailable', reason);
    for (const { reject } of this.#pending.values()) reject(this.#problem);
    this.#closed.resolve(this.#closing ? undefined : this.#problem);
  }
}

function resultOf<M extends Method>(method: M, message: unknown): Result<M> {
  const response = z.safeParse(responseShape, message);
  if (!response.success) throw new BerthError('internal', 'an answer of no known form');
  if ('error' in response.data) {
    const { kind, message: text } = response.data.error;
    throw new BerthError(errorKind(kind), text.slice(0, MAX_TEXT));
  }
  try {
    return checkResult(method, response.data.result);
  } catch (e: unknown) {
    throw new BerthError('internal', `an answer of another form: ${messageOf(e)}`, { cause: e });
  }
}
