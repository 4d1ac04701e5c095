import { constants, type FileHandle, open, stat } from 'node:fs/promises';
import { isErrno, messageOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';

const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT;
const MODE = 0o640;

/**
 * A container's log file. Appends and a change of the file happen one after the other. What cannot be written,
 * on a full disk, is lost: a container must not stand still for its log.
 */
export class LogFile {
  readonly #path: string;
  readonly #log: Logger;
  #file: FileHandle;
  #tail: Promise<unknown> = Promise.resolve();
  #failing = false;

  private constructor(path: string, file: FileHandle, log: Logger) {
    this.#path = path;
    this.#file = file;
    this.#log = log;
  }

  /** Goes on with a file that is there. @throws Node's system error */
  static async open(path: string, log: Logger): Promise<LogFile> {
    return new LogFile(path, await open(path, FLAGS, MODE), log);
  }

  /** Resolves when it is written or lost; never rejects. */
  append(bytes: Buffer): Promise<void> {
    return this.#inTurn(async () => {
      try {
        await this.#file.writeFile(bytes);
        this.#failing = false;
      } catch (e: unknown) {
        if (!this.#failing) this.#log.warn({ path: this.#path, reason: messageOf(e) }, 'log lines are lost');
        this.#failing = true;
      }
    });
  }

  /** Goes over to a new file of the same name, unless the old one still has it. @throws Node's system error */
  reopen(): Promise<void> {
    return this.#inTurn(async () => {
      if (await this.#isInPlace()) return;
      const next = await open(this.#path, FLAGS, MODE);
      const before = this.#file;
      this.#file = next;
      await before.close();
    });
  }

  /** After all that was appended: to the disk, and closed. Never rejects. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#file.datasync().catch(() => {});
      await this.#file.close().catch(() => {});
    });
  }

  async #isInPlace(): Promise<boolean> {
    try {
      const [own, there] = await Promise.all([
        this.#file.stat({ bigint: true }),
        stat(this.#path, { bigint: true }),
      ]);
      return own.ino === there.ino && own.dev === there.dev;
    } catch (e: unknown) {
      if (isErrno(e, 'ENOENT')) return false;
      throw e;
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(work);
    this.#tail = turn.catch(() => {});
    return turn;
  }
}
