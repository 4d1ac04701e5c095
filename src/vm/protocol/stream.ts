import { HEADER_BYTES } from './frame.ts';

/** What either side may send of a stream before the other has granted more, bytes. */
export const INITIAL_CREDIT = 256 * 1024;
/** The longest piece of a stream in one frame: so short that a call waits for no more than one, and as virtio-serial takes at a time. */
export const MAX_DATA_BYTES = 32 * 1024 - HEADER_BYTES;
/** Granted credit is told when this much has come together: a frame for each chunk would double the traffic. */
const GRANT_BYTES = INITIAL_CREDIT / 4;

/** What a user of a stream is told. */
export interface StreamHandlers {
  /** The user calls {@link MuxStream.consumed} when it has passed the bytes on; until then they count as credit. */
  data(chunk: Uint8Array): void;
  /** The other side sends no more. */
  end(): void;
  /** All that was written, and after `end` the end too, is sent; possibly before `write` or `end` has returned. */
  drain(): void;
  /** The stream is over in both directions before its orderly end; not called after `reset` or both ends. */
  aborted(reason: string): void;
}

/** What a stream wants of its connection. */
export interface StreamLink {
  /** There is something to take with {@link MuxStream.take}. */
  ready(stream: MuxStream): void;
  grant(id: number, bytes: number): void;
  reset(id: number, reason: string): void;
  /** Over in both directions: the id is free. */
  over(id: number): void;
}

/** One byte stream in both directions over a shared connection, with credit of its own each way. */
export class MuxStream {
  readonly id: number;
  readonly #link: StreamLink;
  readonly #handlers: StreamHandlers;
  #queue: Uint8Array[] = [];
  #queued = 0;
  #credit = INITIAL_CREDIT;
  /** Bytes that the other side may still send. */
  #window = INITIAL_CREDIT;
  #ungranted = 0;
  #ends: Ends = { wanted: false, sent: false, received: false, over: false };

  constructor(id: number, link: StreamLink, handlers: StreamHandlers) {
    this.id = id;
    this.#link = link;
    this.#handlers = handlers;
  }

  /**
   * Sends a chunk, which must not be changed before `drain`: the caller then may write more. Ignored when the
   * stream is over.
   */
  write(chunk: Uint8Array): void {
    if (this.#ends.wanted || this.#ends.over || chunk.length === 0) return;
    this.#queue.push(chunk);
    this.#queued += chunk.length;
    if (this.#credit > 0) this.#link.ready(this);
  }

  /** No more data from this side, after what is written. Repeatable. */
  end(): void {
    if (this.#ends.wanted || this.#ends.over) return;
    this.#ends.wanted = true;
    if (this.#queued === 0) this.#link.ready(this);
  }

  /** Ends both directions now. Repeatable. */
  reset(reason: string): void {
    if (this.#ends.over) return;
    this.#link.reset(this.id, reason === '' ? 'reset' : reason);
    this.#finish();
  }

  /** The user has passed on this many bytes of what `data` brought. */
  consumed(bytes: number): void {
    if (this.#ends.over || this.#ends.received) return;
    this.#ungranted += bytes;
    if (this.#ungranted < GRANT_BYTES) return;
    this.#window += this.#ungranted;
    this.#link.grant(this.id, this.#ungranted);
    this.#ungranted = 0;
  }

  /** For the connection: the next piece to send, at most a frame's; undefined when there is none or no credit. */
  take(): Uint8Array | 'end' | undefined {
    if (this.#ends.over || this.#ends.sent) return undefined;
    const [first] = this.#queue;
    if (first === undefined) {
      if (!this.#ends.wanted) return undefined;
      this.#ends.sent = true;
      this.#finishIfBoth();
      return 'end';
    }
    const size = Math.min(first.length, this.#credit, MAX_DATA_BYTES);
    if (size === 0) return undefined;
    if (size === first.length) this.#queue.shift();
    else this.#queue[0] = first.subarray(size);
    this.#queued -= size;
    this.#credit -= size;
    return first.subarray(0, size);
  }

  /** For the connection, after `take` answered something: tells the user when all is sent. */
  sent(): void {
    if (this.#queued === 0 && this.#ends.wanted === this.#ends.sent) this.#handlers.drain();
  }

  /** For the connection. @returns false when the other side sent more than it may, or after its end */
  receive(chunk: Uint8Array): boolean {
    if (this.#ends.over) return true;
    if (this.#ends.received || chunk.length > this.#window) return false;
    this.#window -= chunk.length;
    if (chunk.length > 0) this.#handlers.data(chunk);
    return true;
  }

  /** For the connection: END has come. */
  receiveEnd(reason: string): void {
    if (this.#ends.over) return;
    if (reason !== '') {
      this.#finish();
      this.#handlers.aborted(reason);
      return;
    }
    if (this.#ends.received) return;
    this.#ends.received = true;
    this.#handlers.end();
    this.#finishIfBoth();
  }

  /** For the connection: WINDOW has come. @returns false for credit past all bounds */
  receiveCredit(bytes: number): boolean {
    this.#credit += bytes;
    if (this.#queued > 0) this.#link.ready(this);
    return this.#credit <= INITIAL_CREDIT;
  }

  #finishIfBoth(): void {
    if (this.#ends.sent && this.#ends.received) this.#finish();
  }

  #finish(): void {
    this.#ends.over = true;
    this.#queue = [];
    this.#queued = 0;
    this.#link.over(this.id);
  }
}

interface Ends {
  /** `end` was called. */
  wanted: boolean;
  sent: boolean;
  received: boolean;
  /** In both directions. */
  over: boolean;
}
