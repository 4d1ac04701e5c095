import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { printable, writeJson } from '../output.ts';
import { formatBytes } from '../units.ts';

interface Options {
  images?: boolean;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description('Removes stored content that nothing needs. berthd does so by itself within a minute.')
    .option('--images', 'also remove images that no container uses, unless they are pinned')
    .addHelpText('after', '\nExamples:\n  berth gc\n  berth gc --images\n')
    .action((options: Options) => collect(context(), options));
}

async function collect(context: Context, options: Options): Promise<void> {
  const client = await context.client();
  const answer = await client.collectGarbage({ images: options.images ?? false });
  if (context.output === 'json') return writeJson(context, answer);
  for (const { id, names } of answer.images) context.stdout.write(`${printable([id, ...names].join(' '))}\n`);
  context.stdout.write(`freed ${formatBytes(BigInt(answer.freed_bytes))}\n`);
}
