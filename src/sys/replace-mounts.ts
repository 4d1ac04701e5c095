import { Worker } from 'node:worker_threads';
import { BerthError } from '../errors.ts';

const REPLACE_MS = 10_000;

/** What the thread is told. */
export interface ReplaceMounts {
  pid: number;
  /** Folder of this mount namespace whose files are shown. */
  dir: string;
  /** Absolute paths, the same below `dir` and in the other mount namespace. */
  files: readonly string[];
}

/**
 * Puts files of a folder over those at the same paths in the mount namespace of process `pid`, read-only, in
 * place of what is mounted there. In a thread of its own: a thread that has entered another mount namespace
 * has another root directory.
 *
 * @throws BerthError `internal`, `deadline`
 */
export async function replaceMounts(pid: number, dir: string, files: readonly string[]): Promise<void> {
  const workerData: ReplaceMounts = { pid, dir, files };
  const url = new URL(
    `./replace-mounts-worker.${import.meta.filename.endsWith('.ts') ? 'ts' : 'js'}`,
    import.meta.url,
  );
  const worker = new Worker(url, { workerData, stdout: false, stderr: false });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(
    () => reject(new BerthError('deadline', 'mounts could not be replaced in time')),
    REPLACE_MS,
  );
  worker.once('error', (e) =>
    reject(new BerthError('internal', `replace mounts: ${e.message}`, { cause: e })),
  );
  worker.once('message', () => resolve());
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
}
