import { stat } from 'node:fs/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { isErrno } from '../../errors.ts';
import { rootfsArchive } from '../../image/rootfs.ts';
import type { Context } from '../context.ts';
import { UsageError } from '../errors.ts';
import { importPieces } from './import.ts';

interface Options {
  entrypoint?: string[];
  cmd?: string[];
  env: string[];
  label: string[];
  volume: string[];
  user?: string;
  workdir?: string;
  stopSignal?: string;
}

const words = z.array(z.string());

export function configure(command: Command, context: () => Context): void {
  command
    .description('Makes an image with one layer of the files below a directory, and prints its id and names.')
    .argument('<directory>', 'the root of its file system')
    .argument('<name>', 'name of the image, such as localhost/tools:1')
    .option('--entrypoint <command>', 'as JSON, ["/bin/app","-v"], or a line for /bin/sh', commandLine)
    .option(
      '--cmd <command>',
      'its arguments, or the command when there is no entrypoint; in the same form',
      commandLine,
    )
    .option('-e, --env <NAME=value>', 'variable of the environment; may be repeated', pair, [])
    .option('-l, --label <name=value>', 'label; may be repeated', pair, [])
    .option('--volume <path>', 'path that is a volume; may be repeated', list, [])
    .option('-u, --user <user>', 'user, uid, user:group or uid:gid that runs it')
    .option('-w, --workdir <path>', 'working directory')
    .option('--stop-signal <signal>', 'signal that ends it, such as SIGINT')
    .addHelpText(
      'after',
      '\nOwners, modes, times in whole seconds, capabilities and "user." attributes of files are kept. The same\n' +
        'directory gives the same image; with SOURCE_DATE_EPOCH set, times of files after it count as that one.\n' +
        '\nExamples:\n  berth build-rootfs ./root localhost/tools:1 --cmd \'["/bin/sh"]\'\n' +
        '  berth build-rootfs ./root localhost/app:2 --entrypoint \'["/app"]\' -e LANG=C.UTF-8 -u 1000\n',
    )
    .action((directory: string, name: string, options: Options) =>
      build(context(), directory, name, options),
    );
}

async function build(context: Context, directory: string, name: string, options: Options): Promise<void> {
  const there = await stat(directory).catch((e: unknown) => {
    if (!isErrno(e, 'ENOENT', 'ENOTDIR')) throw e;
  });
  if (there?.isDirectory() !== true) throw new UsageError(`${directory}: is no directory`);
  const { env, label, volume, entrypoint, cmd, user, workdir, stopSignal } = options;
  const epoch = epochOf(context.env.SOURCE_DATE_EPOCH);
  const archive = rootfsArchive(directory, {
    name,
    config: {
      env,
      volumes: volume,
      labels: Object.fromEntries(label.map(split)),
      ...(entrypoint === undefined ? {} : { entrypoint }),
      ...(cmd === undefined ? {} : { cmd }),
      ...(user === undefined ? {} : { user }),
      ...(workdir === undefined ? {} : { workingDir: workdir }),
      ...(stopSignal === undefined ? {} : { stopSignal }),
    },
    ...(epoch === undefined ? {} : { epoch }),
  });
  await importPieces(context, archive, name);
}

/** As in a Dockerfile: a JSON list of words, or a line that a shell runs. */
function commandLine(text: string): string[] {
  if (!text.startsWith('[')) return ['/bin/sh', '-c', text];
  try {
    return words.parse(JSON.parse(text));
  } catch {
    throw new InvalidArgumentError('must be a JSON list of words, or a line for /bin/sh');
  }
}

function pair(text: string, previous: string[]): string[] {
  if (!/^[^=\0]+=[^\0]*$/.test(text)) throw new InvalidArgumentError('must be of the form name=value');
  return [...previous, text];
}

function list(text: string, previous: string[]): string[] {
  return [...previous, text];
}

function split(text: string): [string, string] {
  const equals = text.indexOf('=');
  return [text.slice(0, equals), text.slice(equals + 1)];
}

/** Seconds since 1970 (reproducible-builds.org/specs/source-date-epoch). @throws UsageError */
function epochOf(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined;
  if (!/^\d{1,11}$/.test(text)) throw new UsageError(`SOURCE_DATE_EPOCH: "${text}" is no number of seconds`);
  return Number(text);
}
