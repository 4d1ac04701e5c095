import type { Command } from 'commander';
import { BerthError } from '../../errors.ts';
import type { Context } from '../context.ts';
import { forEach, removePod, stopContainer } from '../lifecycle.ts';
import { idOf, inventory, resolve } from '../resolve.ts';
import { parseGrace } from './stop.ts';

interface Options {
  force?: boolean;
  grace?: string;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description(
      'Removes containers, or pods with all that belongs to them: containers, logs, emptyDir volumes.',
    )
    .argument('<pod-or-container...>', 'ids, beginnings of ids, or names')
    .option('-f, --force', 'stop them first when they run')
    .option('-g, --grace <seconds>', 'with --force: time to end before they are killed')
    .addHelpText('after', '\nExamples:\n  berth rm -f default/web\n  berth rm 3f2a\n')
    .action((words: string[], options: Options) => remove(context(), words, options));
}

async function remove(context: Context, words: string[], options: Options): Promise<void> {
  const grace = parseGrace(options.grace);
  const client = await context.client();
  const all = await inventory(client);
  await forEach(words, async (word) => {
    const target = resolve(word, all, ['pod', 'container']);
    const runs =
      target.kind === 'pod'
        ? target.pod.state === 'SANDBOX_READY'
        : target.container.state === 'CONTAINER_RUNNING';
    if (runs && !options.force) {
      throw new BerthError(
        'precondition',
        `${target.kind} ${word} is running; stop it first, or use --force`,
      );
    }
    if (target.kind === 'pod') await removePod(client, target.pod, all.containers, grace);
    else {
      if (runs) await stopContainer(client, target.container, grace);
      await client.runtime('RemoveContainer', { container_id: target.container.id });
    }
    context.stdout.write(`${idOf(target)}\n`);
  });
}
