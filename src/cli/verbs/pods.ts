import type { Command } from 'commander';
import { kindOf } from '../../errors.ts';
import type { Client } from '../client.ts';
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
  const forPeople = context.output === 'table' && !options.quiet;
  const addresses = forPeople ? await addressesOf(client, items) : undefined;
  const row = (pod: Pod) => [
    shortId(pod.id, !options.trunc),
    pod.metadata?.namespace ?? '',
    pod.metadata?.name ?? '',
    stateName(pod.state),
    addresses?.get(pod.id) ?? '-',
    formatAge(BigInt(pod.created_at), now),
    pod.runtime_handler || '-',
  ];
  const head = ['POD', 'NAMESPACE', 'NAME', 'STATE', 'IP', 'AGE', 'RUNTIME'];
  const id = (pod: Pod) => shortId(pod.id, !options.trunc);
  writeList(context, items, { head, row, id }, { quiet: options.quiet === true });
}

/** The first address of each pod by id, which a list does not tell and people want first. */
async function addressesOf(client: Client, pods: readonly Pod[]): Promise<Map<string, string>> {
  const texts = pods.map(async ({ id }): Promise<[string, string] | undefined> => {
    const { status } = await client
      .runtime('PodSandboxStatus', { pod_sandbox_id: id })
      .catch((e: unknown) => {
        // Removed since the list was made.
        if (kindOf(e) === 'notFound') return { status: null };
        throw e;
      });
    const text = status?.linux?.namespaces?.options?.network === 'NODE' ? "node's" : status?.network?.ip;
    return text ? [id, text] : undefined;
  });
  return new Map((await Promise.all(texts)).filter((text) => text !== undefined));
}
