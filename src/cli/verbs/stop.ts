import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { UsageError } from '../errors.ts';
import { forEach, stopContainer, stopPod } from '../lifecycle.ts';
import { idOf, inventory, resolve } from '../resolve.ts';

interface Options {
  grace?: string;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description('Stops containers, or pods with all their containers and their network.')
    .argument('<pod-or-container...>', 'ids, beginnings of ids, or names')
    .option('-g, --grace <seconds>', "time to end before they are killed (default: the pod's, else 30)")
    .addHelpText('after', '\nExamples:\n  berth stop default/web\n  berth stop --grace 0 3f2a\n')
    .action((words: string[], options: Options) => stop(context(), words, options));
}

async function stop(context: Context, words: string[], options: Options): Promise<void> {
  const grace = parseGrace(options.grace);
  const client = await context.client();
  const all = await inventory(client);
  await forEach(words, async (word) => {
    const target = resolve(word, all, ['pod', 'container']);
    if (target.kind === 'pod') await stopPod(client, target.pod, all.containers, grace);
    else await stopContainer(client, target.container, grace);
    context.stdout.write(`${idOf(target)}\n`);
  });
}

/** Whole seconds. @throws UsageError */
export function parseGrace(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new UsageError(`--grace ${text}: must be a whole number of seconds`);
}
