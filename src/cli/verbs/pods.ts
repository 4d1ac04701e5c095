import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { shortId, stateName, writeList } from '../output.ts';
import type { Pod } from '../resolve.ts';
import { formatAge } from '../units.ts';

interface Options {
  quiet?: boolean;
  trunc: boolean;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description('Lists pods, newest first.')
    .option('-q, --quiet', 'ids only')
    .option('--no-trunc', 'whole ids')
    .addHelpText('after', '\nExamples:\n  berth pods\n  berth pods -q | xargs berth rm -f\n')
    .action((options: Options) => list(context(), options));
}

async function list(context: Context, options: Options): Promise<void> {
  const client = await context.client();
  const { items } = await client.runtime('ListPodSandbox', {});
  items.sort((a, b) => (BigInt(a.created_at) < BigInt(b.created_at) ? 1 : -1));
  const now = BigInt(Date.now()) * 1_000_000n;
  const row = (pod: Pod) => [
    shortId(pod.id, !options.trunc),
    pod.metadata?.namespace ?? '',
    pod.metadata?.name ?? '',
    stateName(pod.state),
    formatAge(BigInt(pod.created_at), now),
    pod.runtime_handler || '-',
  ];
  const head = ['POD', 'NAMESPACE', 'NAME', 'STATE', 'AGE', 'RUNTIME'];
  const id = (pod: Pod) => shortId(pod.id, !options.trunc);
  writeList(context, items, { head, row, id }, { quiet: options.quiet === true });
}
