import type { Command } from 'commander';
import { BerthError } from '../../errors.ts';
import type { Context } from '../context.ts';
import { forEach } from '../lifecycle.ts';
import { stateName } from '../output.ts';
import { inventory, resolveContainer } from '../resolve.ts';

export function configure(command: Command, context: () => Context): void {
  command
    .description('Starts containers that were created and never started.')
    .argument('<container...>', 'ids, beginnings of ids, or POD/CONTAINER')
    .addHelpText('after', '\nExamples:\n  berth start web/nginx\n')
    .action((words: string[]) => start(context(), words));
}

async function start(context: Context, words: string[]): Promise<void> {
  const client = await context.client();
  const all = await inventory(client);
  await forEach(words, async (word) => {
    const { container } = resolveContainer(word, all);
    if (container.state !== 'CONTAINER_CREATED') {
      const state = stateName(container.state);
      throw new BerthError(
        'precondition',
        `container ${word} is ${state}; only a created one can start, and a container starts once in its life`,
      );
    }
    await client.runtime('StartContainer', { container_id: container.id });
    context.stdout.write(`${container.id}\n`);
  });
}
