import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { ExitStatus, UsageError } from '../errors.ts';
import { writeJson } from '../output.ts';
import { inventory, resolveContainer } from '../resolve.ts';

export function configure(command: Command, context: () => Context): void {
  command
    .description('Runs a command in a container, without input, and ends with its exit status.')
    .argument('<container>', 'id, beginning of an id, or POD/CONTAINER')
    .argument('<command...>', 'program and arguments; no shell reads them')
    .passThroughOptions()
    .addHelpText(
      'after',
      '\nOutput is shown when the command has ended; --timeout ends it earlier.\n' +
        "\nExamples:\n  berth exec web/nginx -- nginx -t\n  berth exec 3f2a -- sh -c 'ps; df'\n",
    )
    .action((container: string, words: string[]) => exec(context(), container, words));
}

async function exec(context: Context, word: string, words: string[]): Promise<void> {
  // Options after the container are the command's, so the parser leaves the -- before it alone.
  const cmd = words[0] === '--' ? words.slice(1) : words;
  if (cmd.length === 0) throw new UsageError('no command is given');
  const client = await context.client();
  const { container } = resolveContainer(word, await inventory(client));
  const request = { container_id: container.id, cmd };
  const { stdout, stderr, exit_code } = await client.runtime('ExecSync', request, { timeoutMs: 0 });
  if (context.output === 'json') {
    writeJson(context, { stdout: stdout.toString(), stderr: stderr.toString(), exit_code });
  } else {
    context.stdout.write(stdout);
    context.stderr.write(stderr);
  }
  if (exit_code !== 0) throw new ExitStatus(exit_code);
}
