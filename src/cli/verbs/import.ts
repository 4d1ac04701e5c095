import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { BerthError, during, kindOf } from '../../errors.ts';
import { listTree, packTree } from '../../image/tar/pack.ts';
import type { Context } from '../context.ts';
import { UsageError } from '../errors.ts';
import { isTerminal, writeJson } from '../output.ts';

interface Options {
  name?: string;
}

/** The protocol's limit of a piece is 1 MiB; pieces of this size keep both ends busy. */
const CHUNK = 256 << 10;

export function configure(command: Command, context: () => Context): void {
  command
    .description('Adds the images of an OCI or docker archive and prints the id and names of each.')
    .argument('<file>', 'a tar file, the directory of an OCI layout, or - for standard input')
    .option('-n, --name <name>', 'name for the image of an archive that carries none')
    .addHelpText(
      'after',
      '\nExamples:\n  berth import busybox.tar\n  docker save app | berth import -\n' +
        '  berth import --name registry.example/app:1 app-oci.tar\n',
    )
    .action((file: string, options: Options) => importArchive(context(), file, options));
}

async function importArchive(context: Context, file: string, { name }: Options): Promise<void> {
  if (file === '-' && isTerminal(context.stdin as NodeJS.WritableStream & NodeJS.ReadableStream)) {
    throw new UsageError('standard input is a terminal; pipe an archive in, or name a file');
  }
  await importPieces(context, read(context, file), name);
}

/**
 * Sends an archive to the daemon and prints what came of it.
 *
 * @param name for an archive with one image, instead of its own
 * @throws BerthError `unimplemented` from daemons that are not berthd
 */
export async function importPieces(
  context: Context,
  archive: AsyncIterable<Buffer>,
  name: string | undefined,
): Promise<void> {
  const client = await context.client();
  const { images } = await client.importImage(parts(archive, name)).catch((e: unknown) => {
    if (kindOf(e) === 'unimplemented') {
      throw new BerthError(
        'unimplemented',
        'this daemon imports no archives: CRI has no such call; use berthd',
      );
    }
    throw e;
  });
  if (context.output === 'json') return writeJson(context, images);
  for (const { id, names } of images) context.stdout.write(`${[id, ...names].join(' ')}\n`);
}

async function* parts(archive: AsyncIterable<Buffer>, name: string | undefined) {
  if (name !== undefined) yield { name };
  for await (const bytes of archive) {
    for (let at = 0; at < bytes.length; at += CHUNK) yield { chunk: bytes.subarray(at, at + CHUNK) };
  }
}

async function* read(context: Context, file: string): AsyncGenerator<Buffer> {
  try {
    if (file !== '-' && (await stat(file)).isDirectory()) {
      yield* packTree(await listTree(file));
      return;
    }
    const source = file === '-' ? context.stdin : createReadStream(file, { highWaterMark: CHUNK });
    for await (const data of source) yield typeof data === 'string' ? Buffer.from(data) : data;
  } catch (e: unknown) {
    throw during(`read ${file}`, e);
  }
}
