import { readFile } from 'node:fs/promises';
import { writeFileAtomic } from '../sys/atomic-file.ts';
import { fileIdentity } from '../sys/file-identity.ts';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** An answer, and what it depends on. */
interface Kept {
  key: unknown;
  answer: unknown;
}

/**
 * What was found out about this host by trying. Each machine's shim needs it and none lives long, so it is kept in a
 * file until the next boot, or until one of the files that it depends on is another one. Shims that ask at the same time
 * try at the same time; the file is always one's whole.
 */
export class Probes {
  readonly #file: string;

  /** @param file in a directory of root's */
  constructor(file: string) {
    this.#file = file;
  }

  /**
   * @param name of the question
   * @param files on which the answer depends
   * @throws what `find` throws; that is not kept
   */
  async ask<T extends string | boolean>(
    name: string,
    files: readonly string[],
    find: () => Promise<T>,
    answers: readonly T[],
  ): Promise<T> {
    const boot = (await readFile(BOOT_ID, 'utf8')).trim();
    const key = JSON.stringify([boot, files, await Promise.all(files.map(fileIdentity))]);
    const { key: keptFor, answer } = Object((await this.#read())[name]);
    const known = keptFor === key ? answers.find((possible) => possible === answer) : undefined;
    if (known !== undefined) return known;
    const found = await find();
    // A full disk costs time, and no pod.
    await this.#keep(name, { key, answer: found }).catch(() => {});
    return found;
  }

  async #read(): Promise<Record<string, unknown>> {
    try {
      return { ...Object(JSON.parse(await readFile(this.#file, 'utf8'))) };
    } catch {
      return {};
    }
  }

  async #keep(name: string, kept: Kept): Promise<void> {
    const text = JSON.stringify({ ...(await this.#read()), [name]: kept });
    await writeFileAtomic(this.#file, text, { mode: 0o600 });
  }
}
