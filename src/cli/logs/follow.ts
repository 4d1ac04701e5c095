import { type FileHandle, open, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { isErrno } from '../../errors.ts';
import { type LogEntry, parseLine } from './line.ts';
import { tailOffset } from './tail.ts';

/** What of a log to read, and when to end. */
export interface LogOptions {
  /** Lines of output from the end; undefined: all. */
  tail?: number;
  /** Nanoseconds since the epoch; earlier output is left out. */
  since?: bigint;
  /** Goes on until this answers true, which it does once nobody writes any more. Absent: do not follow. */
  ended?: () => Promise<boolean>;
  signal: AbortSignal;
}

const BLOCK = 64 << 10;
const NEWLINE = 0x0a;
/** A line this long is no line of ours: runtimes split output at 16 KiB or less by default. */
const MAX_LINE = 1 << 20;
const POLL_MS = 100;
/** Asking the daemon costs more than looking at the file. */
const POLLS_PER_QUESTION = 5;

/**
 * The entries of a CRI log file in order. While following, a file that was renamed away (rotation) is read
 * to its end before its successor is begun, and a file cut to nothing is read again from the start.
 *
 * @throws the error of opening the file, unless it is followed: then the file may still be to come
 */
export async function* readLog(path: string, options: LogOptions): AsyncGenerator<LogEntry> {
  const reader = new LogReader(path);
  try {
    await reader.open(options);
    for (let idle = 0; !options.signal.aborted; ) {
      const entries = await reader.read();
      yield* since(entries, options.since);
      if (entries.length > 0 || reader.more) {
        idle = 0;
        continue;
      }
      if (options.ended === undefined) return;
      if (await reader.moveOn()) continue;
      if (idle++ % POLLS_PER_QUESTION === 0 && (await options.ended())) {
        // What was written between our last look and the end, perhaps to a new file.
        do {
          yield* since(await reader.read(), options.since);
        } while (!reader.exhausted || (await reader.moveOn()));
        return;
      }
      await delay(POLL_MS, undefined, { signal: options.signal }).catch(() => undefined);
    }
  } finally {
    await reader.close();
  }
}

function* since(entries: readonly LogEntry[], from: bigint | undefined): Generator<LogEntry> {
  for (const entry of entries) if (from === undefined || entry.time >= from) yield entry;
}

/** Reads whole lines from the file that has the path now or had it when it was opened. */
class LogReader {
  readonly #path: string;
  #file: FileHandle | undefined;
  #inode = 0n;
  #position = 0;
  #rest: Buffer = Buffer.alloc(0);
  /** The last read filled its buffer: there is likely more. */
  more = false;
  /** The last read found nothing. */
  exhausted = false;

  constructor(path: string) {
    this.#path = path;
  }

  async open(options: LogOptions): Promise<void> {
    try {
      await this.#begin();
    } catch (e: unknown) {
      if (options.ended === undefined || !isErrno(e, 'ENOENT')) throw e;
      return;
    }
    if (options.tail !== undefined && this.#file) this.#position = await tailOffset(this.#file, options.tail);
  }

  async read(): Promise<LogEntry[]> {
    const { buffer, bytesRead } = this.#file
      ? await this.#file.read(Buffer.allocUnsafe(BLOCK), 0, BLOCK, this.#position)
      : { buffer: Buffer.alloc(0), bytesRead: 0 };
    this.#position += bytesRead;
    this.more = bytesRead === BLOCK;
    this.exhausted = bytesRead === 0;
    const data = this.#rest.length > 0 ? Buffer.concat([this.#rest, buffer.subarray(0, bytesRead)]) : buffer;
    return this.#split(data.subarray(0, this.#rest.length + bytesRead));
  }

  /** True when there is something new to read: a successor of the file, or the file from its start. */
  async moveOn(): Promise<boolean> {
    const now = await stat(this.#path, { bigint: true }).catch((e: unknown) => {
      // Between rename and reopen there is no file; the old one may still be written to.
      if (isErrno(e, 'ENOENT')) return undefined;
      throw e;
    });
    if (now === undefined) return false;
    if (this.#file !== undefined && now.ino === this.#inode) {
      if (now.size >= this.#position) return now.size > this.#position;
      [this.#position, this.#rest] = [0, Buffer.alloc(0)];
      return true;
    }
    // The writer has changed files by now, so the old one grows no more; its last lines come first.
    if (this.#file !== undefined && (await this.#file.stat()).size > this.#position) return true;
    await this.close();
    await this.#begin();
    return true;
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  async #begin(): Promise<void> {
    this.#file = await open(this.#path, 'r');
    this.#inode = (await this.#file.stat({ bigint: true })).ino;
    [this.#position, this.#rest] = [0, Buffer.alloc(0)];
  }

  #split(data: Buffer): LogEntry[] {
    const entries: LogEntry[] = [];
    let start = 0;
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, start)) {
      const entry = parseLine(data.subarray(start, end));
      if (entry !== undefined) entries.push(entry);
      start = end + 1;
    }
    const rest = data.subarray(start);
    this.#rest = rest.length > MAX_LINE ? Buffer.alloc(0) : Buffer.from(rest);
    return entries;
  }
}
