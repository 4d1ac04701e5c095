import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../errors.ts';
import type { ShimProtos, TaskEventName } from '../../shim/protos.ts';
import { TtrpcClient } from '../../shim/ttrpc/client.ts';
import { run } from '../../sys/exec.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import { timestamp } from './timestamp.ts';

/** The messages are those of proto/shim-events.proto. */
const TOPICS: Readonly<Record<TaskEventName, string>> = {
  TaskCreate: '/tasks/create',
  TaskStart: '/tasks/start',
  TaskExit: '/tasks/exit',
  TaskDelete: '/tasks/delete',
  TaskExecAdded: '/tasks/exec-added',
  TaskExecStarted: '/tasks/exec-started',
  TaskPaused: '/tasks/paused',
  TaskResumed: '/tasks/resumed',
  TaskOOM: '/tasks/oom',
};

/** Where events go to. */
export interface EventSink {
  namespace: string;
  /** Socket of a ttrpc service for events; empty: there is none. */
  ttrpc: string;
  /** The daemon's own address, and the program that takes an event on its stdin where there is no socket. */
  address: string;
  publishBinary: string;
}

/** Events that wait for a daemon that is away; with more, the oldest are forgotten. */
const MAX_WAITING = 1_000;
/** How often one event is tried, and the time between; a daemon restarts in less. */
const TRIES = 30;
const RETRY_MS = 1_000;
const SEND_MS = 5_000;

/** Tells the daemon of events, in their order, one after the other. Nobody waits for it. */
export class Publisher {
  readonly #sink: EventSink;
  readonly #protos: ShimProtos;
  readonly #warn: (message: string) => void;
  readonly #waiting: { name: TaskEventName; at: bigint; value: Buffer }[] = [];
  #client: TtrpcClient | undefined;
  #sending: Promise<void> | undefined;

  constructor(sink: EventSink, protos: ShimProtos, warn: (message: string) => void) {
    this.#sink = sink;
    this.#protos = protos;
    this.#warn = warn;
  }

  /** @param fields of the message of that name */
  publish(name: TaskEventName, fields: object): void {
    const value = this.#protos.taskEvents[name].serialize(fields);
    if (this.#waiting.push({ name, at: nowNs(), value }) > MAX_WAITING) this.#waiting.shift();
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
  }

  /** Resolves when all is told or given up, at most after this many milliseconds. */
  async settled(ms: number): Promise<void> {
    await Promise.race([this.#sending, delay(ms, undefined, { ref: false })]);
  }

  close(): void {
    this.#waiting.length = 0;
    this.#client?.close();
  }

  async #sendAll(): Promise<void> {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      await this.#deliver(next);
      if (this.#waiting[0] === next) this.#waiting.shift();
    }
  }

  async #deliver(event: { name: TaskEventName; at: bigint; value: Buffer }): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        await (this.#sink.ttrpc === '' ? this.#runBinary(event) : this.#forward(event));
        return;
      } catch (e: unknown) {
        if (tries >= TRIES) {
          this.#warn(`an event (${event.name}) could not be told: ${messageOf(e)}`);
          return;
        }
        await delay(RETRY_MS, undefined, { ref: false });
      }
    }
  }

  async #forward({ name, at, value }: { name: TaskEventName; at: bigint; value: Buffer }): Promise<void> {
    if (this.#client === undefined || this.#client.isClosed) {
      this.#client = await TtrpcClient.connect(this.#sink.ttrpc, this.#protos, SEND_MS);
    }
    const envelope = {
      timestamp: timestamp(at),
      namespace: this.#sink.namespace,
      topic: TOPICS[name],
      event: { type_url: `containerd.events.${name}`, value },
    };
    await this.#client.call(this.#protos.events.Forward, { envelope }, { timeoutMs: SEND_MS });
  }

  /** As containerd's docs/runtime-v2.md has it: an Any on stdin. */
  async #runBinary({ name, value }: { name: TaskEventName; value: Buffer }): Promise<void> {
    const { address, namespace, publishBinary } = this.#sink;
    if (publishBinary === '') return;
    const input = this.#protos.any.serialize({ type_url: `containerd.events.${name}`, value });
    const argv: [string, ...string[]] = [
      publishBinary,
      ...['--address', address, 'publish', '--topic', TOPICS[name], '--namespace', namespace],
    ];
    const { code } = await run(argv, { input, timeoutMs: SEND_MS, maxOutput: 4096 });
    if (code !== 0) throw new Error(`${publishBinary} ended with code ${code}`);
  }
}
