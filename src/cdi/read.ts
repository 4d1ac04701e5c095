import { constants, open, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { isErrno, messageOf } from '../errors.ts';
import { type CdiSpec, cdiSchema } from './schema.ts';

const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_FILES = 1000;

/** A file that can be used; of two files with the same device the one with the higher rank counts. */
export interface CdiFile {
  path: string;
  /** Place of its directory in the configuration. */
  rank: number;
  spec: CdiSpec;
}

/** What the configured directories hold. */
export interface CdiFiles {
  files: CdiFile[];
  /** Of files that cannot be used: path and reason. */
  problems: string[];
}

/**
 * Reads all CDI files: `*.json` and `*.yaml` directly in the directories. A bad file spoils no other; an absent
 * directory is an empty one.
 *
 * They are read for each container that asks for a device, so a file counts from the moment it is there.
 */
export async function readCdiFiles(dirs: readonly string[]): Promise<CdiFiles> {
  const found: CdiFiles = { files: [], problems: [] };
  for (const [rank, dir] of dirs.entries()) {
    for (const name of await namesIn(dir, found.problems)) {
      const path = join(dir, name);
      try {
        found.files.push({ path, rank, spec: await readCdiFile(path) });
      } catch (e: unknown) {
        found.problems.push(`${path}: ${messageOf(e)}`);
      }
    }
  }
  return found;
}

async function namesIn(dir: string, problems: string[]): Promise<string[]> {
  try {
    const names = (await readdir(dir)).filter((name) => ['.json', '.yaml'].includes(extname(name)));
    if (names.length > MAX_FILES)
      problems.push(`${dir}: only ${MAX_FILES} of ${names.length} files are read`);
    return names.sort().slice(0, MAX_FILES);
  } catch (e: unknown) {
    if (!isErrno(e, 'ENOENT')) problems.push(messageOf(e));
    return [];
  }
}

async function readCdiFile(path: string): Promise<CdiSpec> {
  // Without O_NONBLOCK opening a FIFO would hold one of libuv's threads until a writer comes.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new Error('not a regular file');
    if (stat.size > MAX_FILE_BYTES) throw new Error('larger than 4 MiB');
    const { bytesRead, buffer } = await file.read(Buffer.alloc(MAX_FILE_BYTES), 0, MAX_FILE_BYTES, 0);
    return await parseCdiFile(buffer.toString('utf8', 0, bytesRead));
  } finally {
    await file.close();
  }
}

/** JSON is YAML. @throws Error with the places and reasons */
export async function parseCdiFile(text: string): Promise<CdiSpec> {
  // Most nodes have no such file, and a start need not wait for the parser.
  const { parse } = await import('yaml');
  const result = cdiSchema.safeParse(parse(text));
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) =>
    [path.map(String).join('.'), message].filter((part) => part !== '').join(': '),
  );
  throw new Error(problems.slice(0, 5).join('; '));
}
