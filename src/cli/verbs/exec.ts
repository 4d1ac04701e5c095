import type { Command } from 'commander';
import type { ExecRequest } from '../../../proto/gen/runtime/v1/ExecRequest.ts';
import type { SpdyConnection } from '../../streaming/spdy/connection.ts';
import type { Client } from '../client.ts';
import type { Context } from '../context.ts';
import { ExitStatus, UsageError } from '../errors.ts';
import { writeJson } from '../output.ts';
import { inventory, resolveContainer } from '../resolve.ts';
import { runCommand } from '../streaming/command.ts';
import { COMMAND_PROTOCOL, connectSpdy } from '../streaming/connect.ts';

interface Options {
  stdin?: boolean;
  tty?: boolean;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description('Runs a command in a container, and ends with its exit status.')
    .argument('<container>', 'id, beginning of an id, or POD/CONTAINER')
    .argument('<command...>', 'program and arguments; no shell reads them')
    .option('-i, --stdin', "pass this command's input on")
    .option('-t, --tty', 'give the command a terminal')
    .passThroughOptions()
    .addHelpText(
      'after',
      '\nWith --output json the output is shown when the command has ended.\n' +
        "\nExamples:\n  berth exec web/nginx -- nginx -t\n  berth exec 3f2a -- sh -c 'ps; df'\n" +
        '  berth exec -it web/nginx -- sh\n  berth exec -i web/nginx -- sh <script\n',
    )
    .action((container: string, words: string[], options: Options) =>
      exec(context(), container, words, options),
    );
}

async function exec(context: Context, word: string, words: string[], options: Options): Promise<void> {
  // Options after the container are the command's, so the parser leaves the -- before it alone.
  const cmd = words[0] === '--' ? words.slice(1) : words;
  if (cmd.length === 0) throw new UsageError('no command is given');
  const { stdin = false, tty = false } = options;
  if (context.output === 'json' && (stdin || tty))
    throw new UsageError('--output json goes without --stdin and --tty');
  const client = await context.client();
  const { container } = resolveContainer(word, await inventory(client));
  const connection =
    context.output === 'json'
      ? undefined
      : await connect(client, { container_id: container.id, cmd, stdin, stdout: true, stderr: !tty, tty });
  if (connection === undefined) await execSync(context, client, container.id, cmd);
  else await runCommand(context, connection, { stdin, tty });
}

/** Undefined when the daemon's streaming server is out of reach (in another network) and not needed either. */
async function connect(client: Client, request: ExecRequest): Promise<SpdyConnection | undefined> {
  const { url } = await client.runtime('Exec', request);
  try {
    return await connectSpdy(url, COMMAND_PROTOCOL);
  } catch (e: unknown) {
    if (request.stdin || request.tty) throw e;
    return undefined;
  }
}

/** Shows output only when the command has ended. */
async function execSync(
  context: Context,
  client: Client,
  container_id: string,
  cmd: string[],
): Promise<void> {
  const request = { container_id, cmd };
  const { stdout, stderr, exit_code } = await client.runtime('ExecSync', request, { timeoutMs: 0 });
  if (context.output === 'json') {
    writeJson(context, { stdout: stdout.toString(), stderr: stderr.toString(), exit_code });
  } else {
    context.stdout.write(stdout);
    context.stderr.write(stderr);
  }
  if (exit_code !== 0) throw new ExitStatus(exit_code);
}
