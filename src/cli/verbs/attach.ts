import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { inventory, resolveContainer } from '../resolve.ts';
import { runCommand } from '../streaming/command.ts';
import { COMMAND_PROTOCOL, connectSpdy } from '../streaming/connect.ts';

interface Options {
  stdin?: boolean;
  tty?: boolean;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description("Joins a running container's output, from now on, and its input.")
    .argument('<container>', 'id, beginning of an id, or POD/CONTAINER')
    .option('-i, --stdin', "pass this command's input on, if the container takes any (stdin: true)")
    .option('-t, --tty', 'the container has a terminal (tty: true)')
    .addHelpText(
      'after',
      '\nEnds with the container, or with Ctrl-C; with --tty the container gets every key, also that one.\n' +
        'What the container said before is in its log: berth logs.\n' +
        '\nExamples:\n  berth attach web/nginx\n  berth attach -it debug/shell\n',
    )
    .action((container: string, options: Options) => attach(context(), container, options));
}

async function attach(
  context: Context,
  word: string,
  { stdin = false, tty = false }: Options,
): Promise<void> {
  const client = await context.client();
  const { container } = resolveContainer(word, await inventory(client));
  const request = { container_id: container.id, stdin, stdout: true, stderr: !tty, tty };
  const { url } = await client.runtime('Attach', request);
  await runCommand(context, await connectSpdy(url, COMMAND_PROTOCOL), { stdin, tty });
}
