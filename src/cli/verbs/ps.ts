import type { Command } from 'commander';
import { kindOf } from '../../errors.ts';
import type { Client } from '../client.ts';
import type { Context } from '../context.ts';
import { containerStatus } from '../lifecycle.ts';
import { shortId, stateName, writeList } from '../output.ts';
import { type Container, inventory, podName, podOf, resolve } from '../resolve.ts';
import { formatAge } from '../units.ts';

interface Options {
  all?: boolean;
  quiet?: boolean;
  trunc: boolean;
  pod?: string;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description('Lists running containers.')
    .option('-a, --all', 'those created or ended, too')
    .option('-p, --pod <pod>', 'those of one pod')
    .option('-q, --quiet', 'ids only')
    .option('--no-trunc', 'whole ids')
    .addHelpText('after', '\nExamples:\n  berth ps -a\n  berth ps --pod default/web -o json\n')
    .action((options: Options) => list(context(), options));
}

async function list(context: Context, options: Options): Promise<void> {
  const client = await context.client();
  const all = await inventory(client);
  const wanted = options.pod === undefined ? undefined : resolve(options.pod, all, ['pod']);
  const containers = all.containers
    .filter(({ state }) => options.all || state === 'CONTAINER_RUNNING')
    .filter((c) => wanted === undefined || (wanted.kind === 'pod' && c.pod_sandbox_id === wanted.pod.id))
    .sort((a, b) => (BigInt(a.created_at) < BigInt(b.created_at) ? 1 : -1));
  const now = BigInt(Date.now()) * 1_000_000n;
  const forPeople = context.output === 'table' && !options.quiet;
  const [exits, names] = forPeople
    ? await Promise.all([exitsOf(client, containers), imageNames(client)])
    : [];
  const row = (c: Container) => [
    shortId(c.id, !options.trunc),
    podName(podOf(c, all)),
    c.metadata?.name ?? '',
    exits?.get(c.id) ?? stateName(c.state),
    formatAge(BigInt(c.created_at), now),
    imageName(c, names),
  ];
  const head = ['CONTAINER', 'POD', 'NAME', 'STATE', 'AGE', 'IMAGE'];
  const quiet = options.quiet === true;
  writeList(context, containers, { head, row, id: (c) => shortId(c.id, !options.trunc) }, { quiet });
}

/** How the ended ones ended (`exited (1)`), by id. A list does not say; people want to know first. */
async function exitsOf(client: Client, containers: readonly Container[]): Promise<Map<string, string>> {
  const ended = containers.filter(({ state }) => state === 'CONTAINER_EXITED');
  const texts = ended.map(async ({ id }): Promise<[string, string] | undefined> => {
    const status = await containerStatus(client, id).catch((e: unknown) => {
      if (kindOf(e) === 'notFound') return undefined;
      throw e;
    });
    if (status === undefined) return undefined;
    const detail = status.reason === 'OOMKilled' ? 'out of memory' : String(status.exit_code);
    return [id, `exited (${detail})`];
  });
  return new Map((await Promise.all(texts)).filter((text) => text !== undefined));
}

async function imageNames(client: Client): Promise<Map<string, string>> {
  const { images } = await client.image('ListImages', {});
  return new Map(images.map(({ id, repo_tags }) => [id, repo_tags[0] ?? id]));
}

/** What the pod's author wrote, where the daemon keeps it; ids only where there is nothing better. */
function imageName({ image }: Container, names: ReadonlyMap<string, string> | undefined): string {
  const name = image?.user_specified_image || image?.image || '';
  const known = names?.get(name) ?? name;
  return /^(sha256:)?[0-9a-f]{64}$/.test(known) ? shortId(known) : known;
}
