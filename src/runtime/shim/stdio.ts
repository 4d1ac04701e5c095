import { setTimeout as delay } from 'node:timers/promises';
import type { Attachment, AttachmentSinks } from '../../container/attachments.ts';
import { AttachedClient } from '../../container/attachments.ts';
import { isErrno } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { PolledStream } from '../../sys/polled-stream.ts';
import type { Poller } from '../../sys/poller.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import { criLines } from './cri-log.ts';
import { openReader, openWriter, pokeReader, type StdioPaths } from './fifos.ts';
import { LogFile } from './log-file.ts';

/** How long output is waited for after the end of a container, while something holds it open; milliseconds. */
const DRAIN_MS = 5_000;

/** What a container's stdio is made with. */
export interface StdioParts {
  poller: Poller;
  log: Logger;
}

/**
 * berthd's ends of a container's FIFOs: copies output to the log and to clients that are attached, and takes their
 * input. Nothing is read faster than the log is written, so a container that writes faster waits.
 */
export class ContainerStdio {
  readonly #poller: Poller;
  readonly #paths: StdioPaths;
  readonly #file: LogFile;
  readonly #outputs: PolledStream[] = [];
  readonly #copied: Promise<unknown>;
  readonly #clients = new Set<AttachedClient>();
  #stdin: PolledStream | undefined;
  #finished: Promise<void> | undefined;

  private constructor({ poller }: StdioParts, paths: StdioPaths, file: LogFile) {
    this.#poller = poller;
    this.#paths = paths;
    this.#file = file;
    const { stdout, stderr } = paths;
    this.#copied = Promise.all([
      this.#copy('stdout', stdout),
      ...(stderr === undefined ? [] : [this.#copy('stderr', stderr)]),
    ]);
  }

  /** The FIFOs are there. @throws Node's system error, of the log file too */
  static async open(parts: StdioParts, paths: StdioPaths, logPath: string): Promise<ContainerStdio> {
    const file = await LogFile.open(logPath, parts.log);
    try {
      return new ContainerStdio(parts, paths, file);
    } catch (e: unknown) {
      await file.close();
      throw e;
    }
  }

  /** @throws Node's system error */
  reopenLog(): Promise<void> {
    return this.#file.reopen();
  }

  /** @param closeStdin tells the shim that no more input comes */
  attach(sinks: AttachmentSinks, closeStdin: () => Promise<void>): Attachment {
    const client = new AttachedClient(sinks);
    if (this.#finished === undefined) this.#clients.add(client);
    else client.end();
    return {
      ended: client.ended,
      write: (chunk, done) => {
        const stdin = this.#openStdin();
        return stdin?.writable ? stdin.write(chunk, done) : done();
      },
      endInput: () => {
        const stdin = this.#openStdin();
        const close = () => void closeStdin().catch(() => {});
        if (stdin === undefined) return close();
        stdin.once('close', close);
        stdin.end(() => stdin.destroy());
      },
      detach: () => void this.#clients.delete(client),
    };
  }

  /**
   * After the container's end: reads what is left of its output, which a process in the background may go on
   * holding open, and closes everything, the log on disk. Repeatable; never rejects.
   */
  finish(): Promise<void> {
    this.#finished ??= this.#finish();
    return this.#finished;
  }

  /** Lets go of everything as it is. Repeatable. */
  async close(): Promise<void> {
    for (const stream of [...this.#outputs, this.#stdin]) stream?.destroy();
    await this.#copied;
    this.#finished ??= this.#end();
    await this.#finished;
  }

  async #finish(): Promise<void> {
    for (const path of [this.#paths.stdout, this.#paths.stderr]) if (path !== undefined) pokeReader(path);
    const patience = new AbortController();
    await Promise.race([
      this.#copied,
      delay(DRAIN_MS, undefined, { signal: patience.signal, ref: false }).catch(() => {}),
    ]);
    patience.abort();
    for (const stream of [...this.#outputs, this.#stdin]) stream?.destroy();
    await this.#copied;
    await this.#end();
  }

  async #end(): Promise<void> {
    for (const client of this.#clients) client.end();
    this.#clients.clear();
    await this.#file.close();
  }

  async #copy(name: 'stdout' | 'stderr', path: string): Promise<void> {
    const stream = new PolledStream(this.#poller, openReader(path));
    this.#outputs.push(stream);
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        for (const client of this.#clients) client.write(name, chunk);
        await this.#file.append(criLines(name, chunk, nowNs()));
      }
    } catch (e: unknown) {
      // It was let go of.
      if (!isErrno(e, 'ERR_STREAM_PREMATURE_CLOSE')) throw e;
    }
  }

  /** Opened with the first input, and kept: with the last writer's leaving the container's input would end. */
  #openStdin(): PolledStream | undefined {
    const { stdin } = this.#paths;
    if (this.#stdin !== undefined || stdin === undefined || this.#finished !== undefined) return this.#stdin;
    try {
      this.#stdin = new PolledStream(this.#poller, openWriter(stdin));
      // A container that has ended, or has closed its input, takes no more.
      this.#stdin.on('error', () => {});
    } catch (e: unknown) {
      if (!isErrno(e, 'ENXIO')) throw e;
    }
    return this.#stdin;
  }
}
