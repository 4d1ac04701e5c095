import type { Writable } from 'node:stream';
import { BerthError } from '../errors.ts';
import { PolledStream } from '../sys/polled-stream.ts';
import type { Poller } from '../sys/poller.ts';
import { connectSeqpacket } from '../sys/unix-socket.ts';

/** The first byte of a packet from conmon. */
const STDOUT_PACKET = 2;
const STDERR_PACKET = 3;
/** conmon reads at most 32 KiB of input at once, and would cut longer packets. */
const MAX_INPUT = 16 * 1024;
/** Output in bytes that waits for one client before it is cut off. */
export const MAX_BEHIND = 8 * 1024 * 1024;

/** One client of a container's streams. */
export interface Attachment {
  /** Resolves when the container's output has ended and is handed over; rejects when the client is cut off. */
  readonly ended: Promise<void>;
  /** Types for the container; `done` when conmon has taken it. */
  write(chunk: Buffer, done: (e?: Error | null) => void): unknown;
  /** Closes the container's stdin for good. */
  endInput(): void;
  /** No more output for this client. Repeatable. */
  detach(): void;
}

/** Where a client's output goes; what is left out is dropped. */
export interface AttachmentSinks {
  stdout?: Writable | undefined;
  stderr?: Writable | undefined;
}

/**
 * Joins clients to the streams of running containers. For each container with clients there is one
 * connection to its conmon, however many clients: conmon writes to its clients one after the other and waits
 * for each, the container with it, so the connection is always read at once, and a client that does not keep
 * up is cut off when {@link MAX_BEHIND} bytes wait for it.
 */
export class Attachments {
  readonly #poller: Poller;
  readonly #hubs = new Map<string, Hub>();

  constructor(poller: Poller) {
    this.#poller = poller;
  }

  /**
   * @param path conmon's attach socket
   * @param keep true for a container whose stdin conmon closes when a client leaves
   * @throws SyscallError when conmon does not answer
   */
  attach(id: string, path: string, keep: boolean, sinks: AttachmentSinks): Attachment {
    let hub = this.#hubs.get(id);
    if (hub === undefined) {
      const made = new Hub(
        new PolledStream(this.#poller, connectSeqpacket(path), { packets: true, maxWrite: MAX_INPUT }),
        keep,
      );
      this.#hubs.set(id, made);
      made.socket.once('close', () => {
        if (this.#hubs.get(id) === made) this.#hubs.delete(id);
      });
      hub = made;
    }
    return hub.join(sinks);
  }

  /** Lets go of all containers, which go on. Repeatable. */
  close(): void {
    for (const { socket } of this.#hubs.values()) socket.destroy();
  }
}

/** The clients of one container. */
class Hub {
  readonly socket: PolledStream;
  readonly #members = new Set<AttachedClient>();
  readonly #keep: boolean;

  constructor(socket: PolledStream, keep: boolean) {
    this.socket = socket;
    this.#keep = keep;
    socket.on('data', (packet: Buffer) => this.#receive(packet));
    socket.on('error', () => {});
    socket.once('end', () => socket.destroy());
    socket.once('close', () => {
      for (const member of this.#members) member.end();
      this.#members.clear();
    });
  }

  join(sinks: AttachmentSinks): Attachment {
    const member = new AttachedClient(sinks);
    this.#members.add(member);
    const detach = () => {
      this.#members.delete(member);
      // conmon takes a client's leaving for the end of input, when input is to end with the first client.
      if (this.#members.size === 0 && !this.#keep) this.socket.destroy();
    };
    return {
      ended: member.ended,
      // Another client may have ended the input for good.
      write: (chunk, done) => (this.socket.writable ? this.socket.write(chunk, done) : done()),
      endInput: () => this.socket.end(),
      detach,
    };
  }

  #receive(packet: Buffer): void {
    const kind = packet.readUInt8(0);
    if (kind !== STDOUT_PACKET && kind !== STDERR_PACKET) return;
    const output = packet.subarray(1);
    for (const member of this.#members) member.write(kind === STDOUT_PACKET ? 'stdout' : 'stderr', output);
  }
}

/** Hands output to one client, and cuts it off when it falls too far behind. */
export class AttachedClient {
  readonly ended: Promise<void>;
  readonly #end = Promise.withResolvers<void>();
  readonly #sinks: AttachmentSinks;

  constructor(sinks: AttachmentSinks) {
    this.#sinks = sinks;
    this.ended = this.#end.promise;
    this.ended.catch(() => {});
  }

  write(name: 'stdout' | 'stderr', output: Buffer): void {
    const sink = this.#sinks[name];
    if (sink === undefined || !sink.writable) return;
    sink.write(output);
    if (sink.writableLength <= MAX_BEHIND) return;
    sink.destroy();
    const limit = `${MAX_BEHIND / 1024 / 1024} MiB`;
    this.#end.reject(
      new BerthError('exhausted', `the client fell ${limit} of output behind and was cut off`),
    );
  }

  end(): void {
    this.#end.resolve();
  }
}
