import { BerthError } from '../../src/errors.ts';

/** What the kubelet accepts and sends, bytes. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
/** Whether it is compressed, and its length. */
const PREFIX_BYTES = 5;

/** Cuts a stream of bytes into gRPC's messages: a flag, four bytes of length, the message. */
export class MessageReader {
  #parts: Buffer[] = [];
  #held = 0;
  /** Of the message that has begun, with its prefix. */
  #wanted = PREFIX_BYTES;
  #hasPrefix = false;

  /** Whether bytes of a message are here whose end is not. */
  get isWithin(): boolean {
    return this.#held > 0;
  }

  /**
   * @returns the messages that are complete with these bytes
   * @throws BerthError `exhausted` for a message beyond the limit, as soon as its length is known;
   *   `unimplemented` for a compressed one; nothing more may be pushed then
   */
  push(bytes: Buffer): Buffer[] {
    const messages: Buffer[] = [];
    this.#parts.push(bytes);
    this.#held += bytes.length;
    while (this.#held >= this.#wanted) {
      const all = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts);
      if (all === undefined) break;
      this.#parts = [all];
      if (!this.#hasPrefix) {
        this.#wanted = PREFIX_BYTES + lengthOf(all);
        this.#hasPrefix = true;
        continue;
      }
      messages.push(all.subarray(PREFIX_BYTES, this.#wanted));
      const rest = all.subarray(this.#wanted);
      this.#parts = rest.length === 0 ? [] : [rest];
      this.#held = rest.length;
      this.#wanted = PREFIX_BYTES;
      this.#hasPrefix = false;
    }
    return messages;
  }
}

function lengthOf(prefix: Buffer): number {
  if (prefix[0] !== 0) {
    throw new BerthError('unimplemented', 'the message is compressed; berthd takes grpc-encoding: identity');
  }
  const length = prefix.readUInt32BE(1);
  if (length > MAX_MESSAGE_BYTES) {
    throw new BerthError('exhausted', `a message of ${length} bytes; the limit is ${MAX_MESSAGE_BYTES}`);
  }
  return length;
}

/**
 * The prefix of a message that is sent.
 *
 * @throws BerthError `exhausted` for a message beyond what clients take
 */
export function messagePrefix(length: number): Buffer {
  if (length > MAX_MESSAGE_BYTES) {
    throw new BerthError('exhausted', `an answer of ${length} bytes; the limit is ${MAX_MESSAGE_BYTES}`);
  }
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(length, 1);
  return prefix;
}
