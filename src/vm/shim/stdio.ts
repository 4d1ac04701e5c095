import { closeSync, constants, createWriteStream, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Duplex, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { BerthError } from '../../errors.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK } = constants;
const FILE = 'file://';

/** Where a process's stdio leads on the host: FIFOs, or files for output; empty: nowhere. */
export interface StdioPaths {
  terminal: boolean;
  stdin: string;
  stdout: string;
  stderr: string;
}

/** The streams of a process in the guest; with a terminal there is no stderr. */
export interface GuestStreams {
  stdin?: Duplex;
  stdout: Duplex;
  stderr?: Duplex;
}

/**
 * Copies between a process in the guest and the caller's FIFOs. Nothing is read from the guest faster than the FIFOs
 * take it, so a process whose output nobody reads waits, alone.
 */
export class ProcessStdio {
  /** Resolves when all output is with the caller; never rejects. */
  readonly copied: Promise<void>;
  readonly #streams: GuestStreams;
  readonly #outputs: Writable[] = [];
  #input: Socket | undefined;
  /** This side's writing end of stdin, which keeps it open while writers come and go. */
  #holder = -1;

  /** @throws BerthError `unimplemented` for another kind of place; Node's system error */
  constructor(paths: StdioPaths, streams: GuestStreams) {
    this.#streams = streams;
    for (const stream of Object.values(streams)) stream.on('error', () => {});
    try {
      if (streams.stdin !== undefined) this.#copyInput(paths.stdin, streams.stdin);
      const stdout = this.#copyOutput(paths.stdout, streams.stdout);
      const stderr = streams.stderr && this.#copyOutput(paths.stderr, streams.stderr);
      this.copied = Promise.all([stdout, stderr]).then(() => {});
    } catch (e: unknown) {
      this.close();
      throw e;
    }
  }

  /** From now on the last writer's leaving is the end of input. Repeatable. */
  closeStdin(): void {
    if (this.#holder < 0) return;
    closeSync(this.#holder);
    this.#holder = -1;
  }

  /** Lets go of everything as it is. Repeatable. */
  close(): void {
    this.closeStdin();
    this.#input?.destroy();
    for (const output of this.#outputs) output.destroy();
    for (const stream of Object.values(this.#streams)) stream.destroy();
  }

  #copyInput(path: string, stream: Duplex): void {
    const fd = openSync(path, O_RDONLY | O_NONBLOCK);
    const input = new Socket({ fd, readable: true, writable: false });
    this.#input = input;
    this.#holder = openSync(path, O_WRONLY | O_NONBLOCK);
    input.on('error', () => stream.end());
    input.pipe(stream);
    // A process that has closed its input takes no more.
    stream.once('close', () => input.destroy());
  }

  async #copyOutput(path: string, stream: Duplex): Promise<void> {
    const output = path === '' ? undefined : openOutput(path);
    if (output === undefined) stream.resume();
    else {
      this.#outputs.push(output);
      // Whatever is wrong with the reader, the process goes on.
      output.on('error', () => stream.resume());
      stream.pipe(output);
    }
    await finished(stream, { writable: false }).catch(() => {});
    if (output === undefined) return;
    output.end();
    await finished(output, { readable: false }).catch(() => {});
    output.destroy();
  }
}

function openOutput(place: string): Writable {
  if (place.startsWith(FILE)) return createWriteStream(place.slice(FILE.length), { flags: 'a', mode: 0o600 });
  if (place.includes('://')) {
    throw new BerthError('unimplemented', `stdio: ${place}: berth's shim knows FIFOs and file://`);
  }
  // With a reading end of its own it neither waits for a reader nor breaks when one leaves.
  const fd = openSync(place, O_RDWR | O_NONBLOCK);
  return new Socket({ fd, readable: false, writable: true });
}
