import type { ContainerRecord } from '../container/record.ts';
import { BerthError } from '../errors.ts';
import type { RecordStore } from '../persist/record-store.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { containerEvents, type EventType, sandboxEvents } from './transitions.ts';

/** Something that happened, with the pod as it was right after it. */
export interface ContainerEvent {
  /** Of the container; of the sandbox for what happened to that. */
  readonly id: string;
  readonly type: EventType;
  /** Nanoseconds since the epoch; each event's is greater than the one's before. */
  readonly at: bigint;
  readonly sandbox: SandboxRecord;
  readonly containers: readonly ContainerRecord[];
}

/** The store of records that events are made of. */
type Records<T extends { readonly id: string }> = Pick<RecordStore<T>, 'get' | 'values' | 'onChange'>;

/**
 * How many events a subscriber may be behind: as many as the kubelet holds (its channel for PLEG events). A
 * pod makes about eight in its life, so a hundred pods can end at once.
 */
const MAX_BEHIND = 1000;

/**
 * Tells subscribers of every change in the life of containers and sandboxes, in the order in which they
 * happened. The changes of the records are the one source, so nothing can happen without an event.
 */
export class Events {
  readonly #containers: Records<ContainerRecord>;
  readonly #sandboxes: Records<SandboxRecord>;
  readonly #maxBehind: number;
  readonly #subscriptions = new Set<Subscription>();
  #last = 0n;
  #cutOff = 0;

  constructor(
    sandboxes: Records<SandboxRecord>,
    containers: Records<ContainerRecord>,
    maxBehind: number = MAX_BEHIND,
  ) {
    this.#maxBehind = maxBehind;
    this.#sandboxes = sandboxes;
    this.#containers = containers;
    containers.onChange((before, after) => this.#onContainer(before, after));
    sandboxes.onChange((before, after) => this.#onSandbox(before, after));
  }

  /** Events from now on, until the signal fires or the events end. */
  subscribe(signal?: AbortSignal): Subscription {
    const subscription: Subscription = new Subscription(this.#maxBehind, () => {
      signal?.removeEventListener('abort', end);
      this.#subscriptions.delete(subscription);
    });
    const end = () => subscription.end();
    this.#subscriptions.add(subscription);
    if (signal?.aborted) end();
    else signal?.addEventListener('abort', end, { once: true });
    return subscription;
  }

  /** How many listen now. */
  get subscribers(): number {
    return this.#subscriptions.size;
  }

  /** How many were cut off for being too slow. */
  get cutOff(): number {
    return this.#cutOff;
  }

  /** Ends every subscription after what it has still to tell. Repeatable. */
  close(): void {
    for (const subscription of [...this.#subscriptions]) subscription.end();
  }

  #onContainer(before: ContainerRecord | undefined, after: ContainerRecord | undefined): void {
    const container = after ?? before;
    if (container === undefined) return;
    const sandbox = this.#sandboxes.get(container.sandboxId);
    // One that goes with its sandbox has been told of with that.
    if (sandbox?.phase !== 'live') return;
    for (const type of containerEvents(before, after)) this.#tell(type, container.id, sandbox);
  }

  #onSandbox(before: SandboxRecord | undefined, after: SandboxRecord | undefined): void {
    const sandbox = after ?? before;
    if (sandbox === undefined) return;
    for (const type of sandboxEvents(before, after)) {
      if (type === 'deleted') {
        for (const { id } of this.#containersOf(sandbox.id)) this.#tell('deleted', id, sandbox);
      }
      this.#tell(type, sandbox.id, sandbox);
    }
  }

  #tell(type: EventType, id: string, sandbox: SandboxRecord): void {
    if (this.#subscriptions.size === 0) return;
    const now = nowNs();
    this.#last = now > this.#last ? now : this.#last + 1n;
    const containers = this.#containersOf(sandbox.id);
    const event: ContainerEvent = { id, type, at: this.#last, sandbox, containers };
    for (const subscription of [...this.#subscriptions]) {
      if (!subscription.push(event)) this.#cutOff++;
    }
  }

  #containersOf(sandboxId: string): ContainerRecord[] {
    return [...this.#containers.values()].filter((c) => c.sandboxId === sandboxId && c.phase === 'live');
  }
}

/** One listener's events, to be read with `for await`, by one reader. */
export class Subscription implements AsyncIterable<ContainerEvent> {
  readonly #maxBehind: number;
  readonly #onEnd: () => void;
  readonly #waiting: ContainerEvent[] = [];
  #wake: () => void = () => {};
  #ended = false;
  #failure: BerthError | undefined;

  constructor(maxBehind: number, onEnd: () => void) {
    this.#maxBehind = maxBehind;
    this.#onEnd = onEnd;
  }

  /** @returns false when the listener is too far behind: it gets an error instead of a gap */
  push(event: ContainerEvent): boolean {
    if (this.#waiting.length < this.#maxBehind) {
      this.#waiting.push(event);
      this.#wake();
      return true;
    }
    this.#failure = new BerthError(
      'exhausted',
      `the listener was ${this.#maxBehind} events behind and has been cut off; subscribe again and list what there is`,
    );
    this.#waiting.length = 0;
    this.end();
    return false;
  }

  /** No more events; those that wait are still told. Repeatable. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd();
    this.#wake();
  }

  /** @throws BerthError `exhausted` to a reader that was too slow */
  async *[Symbol.asyncIterator](): AsyncGenerator<ContainerEvent> {
    try {
      for (;;) {
        const event = this.#waiting.shift();
        if (event !== undefined) yield event;
        else if (this.#failure !== undefined) throw this.#failure;
        else if (this.#ended) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.end();
    }
  }
}
