import { createWriteStream } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { during, isErrno } from '../../errors.ts';
import { TarReader } from '../../image/tar/reader.ts';
import type { Context } from '../context.ts';
import { UsageError } from '../errors.ts';
import { LayoutWriter } from '../layout-writer.ts';
import { isTerminal } from '../output.ts';
import { imageOfPrefix } from './rmi.ts';

interface Options {
  file?: string;
  directory?: string;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description('Writes images as one archive, which is an OCI layout and can be given to docker load, too.')
    .argument('<image...>', 'names, ids or beginnings of ids; an id stands for all tags of the image')
    .option('-f, --file <file>', 'write the archive to this file; default: to standard output')
    .option('-d, --directory <directory>', 'write an OCI layout into this directory instead')
    .addHelpText(
      'after',
      '\nExamples:\n  berth export -f app.tar registry.example/app:1 busybox\n' +
        '  berth export app | ssh node-2 berth import -\n  berth export --directory layout app\n',
    )
    .action((images: string[], options: Options) => exportImages(context(), images, options));
}

async function exportImages(context: Context, words: string[], options: Options): Promise<void> {
  const { file, directory } = options;
  if (file !== undefined && directory !== undefined)
    throw new UsageError('--file and --directory exclude each other');
  if (file === undefined && directory === undefined && isTerminal(context.stdout))
    throw new UsageError('standard output is a terminal; name a file by --file, or pipe the archive on');
  const client = await context.client();
  const images: string[] = [];
  for (const word of words) images.push((await imageOfPrefix(client, word)) ?? word);
  const archive = client.exportImages(images);
  if (directory !== undefined) await writeLayout(archive, directory);
  else if (file !== undefined) await writeFile(archive, file);
  else for await (const piece of archive) await write(context.stdout, piece);
}

/** Whole or not at all. */
async function writeFile(archive: AsyncIterable<Buffer>, file: string): Promise<void> {
  const part = `${file}.part`;
  try {
    await pipeline(Readable.from(archive), createWriteStream(part));
    await rename(part, file);
  } catch (e: unknown) {
    await rm(part, { force: true });
    throw e;
  }
}

async function writeLayout(archive: AsyncIterable<Buffer>, directory: string): Promise<void> {
  try {
    await mkdir(directory);
  } catch (e: unknown) {
    if (!isErrno(e, 'EEXIST')) throw during(`write ${directory}`, e);
    if ((await readdir(directory)).length > 0) throw new UsageError(`${directory}: is not empty`);
  }
  const layout = new LayoutWriter(directory);
  const reader = new TarReader(layout);
  for await (const piece of archive) reader.push(piece);
  reader.finish();
}

function write(stream: NodeJS.WritableStream, piece: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(piece, (e) => (e ? reject(e) : resolve()));
  });
}
