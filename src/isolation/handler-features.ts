import { readFile, writeFile } from 'node:fs/promises';
import type { Config } from '../config/schema.ts';
import { fileIdentity } from '../sys/file-identity.ts';
import {
  type MissingFeatures,
  missingFeatures,
  missingInVm,
  probeKernel,
  runtimeFeatures,
} from './features.ts';

/** What the answers depend on. */
export interface FeatureSources {
  readonly runtimes: Config['runtimes'];
  /** Of the handler that is meant where none is named. */
  readonly defaultRuntime: string;
  /** Where images and writable layers lie. */
  readonly root: string;
  /** Where the answers are kept until the next boot. */
  readonly file: string;
  readonly bootId: string;
}

type Answers = Readonly<Record<string, MissingFeatures>>;

/**
 * What each handler cannot do on this node, found out by trying when the first one asks. The trying takes a tenth
 * of a second in which this process does nothing else (mounts and umounts), so that what it showed is kept: it holds
 * until the next boot, or until a program is another one.
 */
export class HandlerFeatures {
  readonly #sources: FeatureSources;
  #answers: Promise<Answers> | undefined;

  constructor(sources: FeatureSources) {
    this.#sources = sources;
  }

  /** @param handler its name; empty: the default one */
  async missingIn(handler: string): Promise<MissingFeatures> {
    return (await this.all())[handler === '' ? this.#sources.defaultRuntime : handler] ?? {};
  }

  /** By the names of the handlers. Never rejects. */
  all(): Promise<Answers> {
    this.#answers ??= this.#find();
    return this.#answers;
  }

  async #find(): Promise<Answers> {
    const key = await keyOf(this.#sources);
    const known = parseAnswers(await readFile(this.#sources.file, 'utf8').catch(() => ''), key);
    if (known !== undefined) return known;
    const { answers, isSure } = await probe(this.#sources);
    // What has failed may have failed for the moment; a start tries it again.
    if (isSure) await writeFile(this.#sources.file, JSON.stringify({ key, answers })).catch(() => {});
    return answers;
  }
}

/** Changes with everything that the answers depend on. */
async function keyOf({ runtimes, root, bootId }: FeatureSources): Promise<string> {
  const programs = await Promise.all(
    Object.entries(runtimes).map(async ([name, { type, path }]) => [
      name,
      type,
      path,
      await fileIdentity(path),
    ]),
  );
  return JSON.stringify([bootId, await fileIdentity(root), programs]);
}

/**
 * @param text of the file in which an earlier berthd kept its answers; it is in a directory of root's
 * @returns undefined when they are for something else, or no answers
 */
export function parseAnswers(text: string, key: string): Answers | undefined {
  try {
    const kept = JSON.parse(text) as { key?: unknown; answers?: Answers };
    return kept.key === key ? kept.answers : undefined;
  } catch {
    return undefined;
  }
}

async function probe({ runtimes, root }: FeatureSources): Promise<{ answers: Answers; isSure: boolean }> {
  const handlers = Object.entries(runtimes);
  const [kernel, ...features] = await Promise.all([
    probeKernel(root),
    ...handlers.map(([, { type, path }]) => (type === 'vm' ? undefined : runtimeFeatures(path))),
  ]);
  const answers = handlers.map(([name, { type, path }], i): [string, MissingFeatures] => [
    name,
    type === 'vm' ? missingInVm(kernel) : missingFeatures(path, features[i], kernel),
  ]);
  const haveAnswered = handlers.every(([, { type }], i) => type === 'vm' || features[i] !== undefined);
  return {
    answers: Object.fromEntries(answers),
    isSure: haveAnswered && Object.keys(kernel).length === 0,
  };
}
