import type { Command } from 'commander';
import { BerthError } from '../../errors.ts';
import type { Context } from '../context.ts';
import { UsageError } from '../errors.ts';
import { containerStatus, hasEnded } from '../lifecycle.ts';
import { readLog } from '../logs/follow.ts';
import { printLog } from '../logs/print.ts';
import { inventory, resolveContainer } from '../resolve.ts';
import { parseDuration, parseTimestamp } from '../units.ts';

interface Options {
  follow?: boolean;
  tail?: string;
  since?: string;
  timestamps?: boolean;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description("Prints a container's output: what it wrote to stdout on stdout, to stderr on stderr.")
    .argument('<container>', 'id, beginning of an id, or POD/CONTAINER')
    .option('-f, --follow', 'go on until the container ends')
    .option('-n, --tail <lines>', 'only the last lines')
    .option('--since <when>', 'only output since then: a duration such as 10m, or an RFC 3339 time')
    .option('-t, --timestamps', 'put the time before each line')
    .addHelpText('after', '\nExamples:\n  berth logs web/nginx\n  berth logs -f --tail 20 3f2a\n')
    .action((container: string, options: Options) => logs(context(), container, options));
}

async function logs(context: Context, word: string, options: Options): Promise<void> {
  const since = parseSince(options.since);
  if (options.tail !== undefined && !/^\d{1,9}$/.test(options.tail)) {
    throw new UsageError(`--tail ${options.tail}: must be a number of lines`);
  }
  const client = await context.client();
  const { container } = resolveContainer(word, await inventory(client));
  const { log_path: path } = await containerStatus(client, container.id);
  if (path === '') throw new BerthError('precondition', `container ${word} keeps no log`);
  const entries = readLog(path, {
    ...(options.tail !== undefined && { tail: Number(options.tail) }),
    ...(since !== undefined && { since }),
    ...(options.follow && { ended: () => hasEnded(client, container.id) }),
    signal: context.signal,
  });
  await printLog(entries, {
    stdout: context.stdout,
    stderr: context.stderr,
    timestamps: options.timestamps === true,
  });
}

function parseSince(text: string | undefined): bigint | undefined {
  if (text === undefined) return undefined;
  const ago = parseDuration(text);
  const moment = ago === undefined ? parseTimestamp(text) : BigInt(Date.now()) * 1_000_000n - ago;
  if (moment !== undefined) return moment;
  throw new UsageError(
    `--since ${text}: must be a duration such as 10m or a time such as 2030-01-31T12:00:00Z`,
  );
}
