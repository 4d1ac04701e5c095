import type { Duplex } from 'node:stream';
import * as z from 'zod/mini';
import { BerthError, messageOf } from '../../../errors.ts';
import { stringifyOci } from '../../../spec/json.ts';
import { orAborted } from '../../../util/abort.ts';

/** Bytes; QEMU's longest answers, such as query-qmp-schema, are not asked for. */
const MAX_LINE = 1 << 20;
/** For a command that names no other time, milliseconds. */
const COMMAND_MS = 10_000;

const greeting = z.object({ QMP: z.object({ version: z.unknown() }) });
const success = z.object({ id: z.number(), return: z.unknown() });
const failure = z.object({ id: z.number(), error: z.object({ class: z.string(), desc: z.string() }) });
const event = z.object({ event: z.string(), data: z.optional(z.record(z.string(), z.unknown())) });

/** Something that happened in the machine, such as `SHUTDOWN` or `DEVICE_DELETED`. */
export interface QmpEvent {
  name: string;
  data: Readonly<Record<string, unknown>>;
}

export interface CommandOptions {
  signal?: AbortSignal;
  timeoutMs?: number;
}

interface Waiting {
  resolve(value: unknown): void;
  refuse(why: string): void;
  lose(e: Error): void;
}

/**
 * A client of QEMU's machine protocol (QEMU documentation, "QEMU Machine Protocol Specification"): JSON
 * lines, commands answered by id, events between them.
 */
export class Qmp {
  readonly #stream: Duplex;
  readonly #waiting = new Map<number, Waiting>();
  readonly #greeted = Promise.withResolvers<void>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #line: Buffer[] = [];
  #lineSize = 0;
  #lastId = 0;
  #failure: Error | undefined;

  /** The stream is the connection's, and owned from now on. Nothing can be asked before `negotiate`. */
  constructor(stream: Duplex) {
    this.#stream = stream;
    this.#greeted.promise.catch(() => {});
    stream.on('data', (chunk: Buffer) => this.#receive(chunk));
    stream.on('error', (e) => this.#fail(e));
    stream.on('close', () => this.#fail(new Error('the connection was closed')));
  }

  /**
   * Waits for the greeting and leaves capabilities negotiation; events come from now on.
   *
   * @throws BerthError `unavailable`, `deadline`; the signal's reason
   */
  async negotiate(options: CommandOptions = {}): Promise<void> {
    await this.#bounded('greeting', this.#greeted.promise, options);
    await this.execute('qmp_capabilities', undefined, options);
  }

  /** @returns an undo that stops the listening */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Runs a command and answers what it returned.
   *
   * @throws BerthError `internal` with QEMU's description when it refuses, `unavailable` when the connection
   *   ends, `deadline`; the signal's reason
   */
  async execute(command: string, args?: object, options: CommandOptions = {}): Promise<unknown> {
    options.signal?.throwIfAborted();
    if (this.#failure !== undefined) throw lost(command, this.#failure);
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, {
      resolve,
      refuse: (why) => reject(new BerthError('internal', `QEMU: ${command}: ${why}`)),
      lose: (e) => reject(lost(command, e)),
    });
    this.#stream.write(`${stringifyOci({ execute: command, arguments: args, id })}\n`);
    try {
      return await this.#bounded(command, promise, options);
    } finally {
      this.#waiting.delete(id);
    }
  }

  /** Ends the connection; the machine lives on. Repeatable. */
  close(): void {
    this.#stream.destroy();
  }

  async #bounded<T>(what: string, answer: Promise<T>, options: CommandOptions): Promise<T> {
    const { signal, timeoutMs = COMMAND_MS } = options;
    const timeout = AbortSignal.timeout(timeoutMs);
    try {
      return await orAborted(answer, signal === undefined ? timeout : AbortSignal.any([signal, timeout]));
    } catch (e: unknown) {
      if (e !== timeout.reason) throw e;
      throw new BerthError('deadline', `QEMU: no answer to ${what} within ${timeoutMs} ms`);
    }
  }

  #receive(chunk: Buffer): void {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      this.#line.push(chunk.subarray(from, end));
      const line = Buffer.concat(this.#line).toString();
      this.#line = [];
      this.#lineSize = 0;
      from = end + 1;
      this.#accept(line);
    }
    this.#line.push(chunk.subarray(from));
    this.#lineSize += chunk.length - from;
    if (this.#lineSize > MAX_LINE) this.#stream.destroy(new Error(`a line longer than ${MAX_LINE} bytes`));
  }

  #accept(line: string): void {
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch (e: unknown) {
      this.#stream.destroy(new Error(`not JSON: ${messageOf(e)}`));
      return;
    }
    const happened = event.safeParse(message);
    if (happened.success) {
      const { event: name, data = {} } = happened.data;
      for (const listener of this.#listeners) listener({ name, data });
      return;
    }
    const done = success.safeParse(message);
    const refused = failure.safeParse(message);
    if (done.success) this.#waiting.get(done.data.id)?.resolve(done.data.return);
    else if (refused.success) this.#waiting.get(refused.data.id)?.refuse(refused.data.error.desc);
    else if (greeting.safeParse(message).success) this.#greeted.resolve();
  }

  #fail(e: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = e;
    this.#greeted.reject(lost('greeting', e));
    for (const { lose } of this.#waiting.values()) lose(e);
  }
}

function lost(command: string, cause: Error): BerthError {
  return new BerthError('unavailable', `QEMU: ${command}: ${cause.message}`, { cause });
}
