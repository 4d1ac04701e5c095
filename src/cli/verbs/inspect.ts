import path from 'node:path';
import type { Command } from 'commander';
import { detectCgroups } from '../../../cgroups/index.ts';
import { BerthError, kindOf, notFound } from '../../errors.ts';
import type { Client } from '../client.ts';
import type { Context } from '../context.ts';
import { writeJson } from '../output.ts';
import { type Inventory, inventory, resolve, type Target } from '../resolve.ts';
import { resolveImage } from './rmi.ts';

export function configure(command: Command, context: () => Context): void {
  command
    .description('Prints all that the daemon tells about pods, containers or images, as JSON.')
    .argument('<name...>', 'ids, beginnings of ids, or names')
    .option('--cgroup', "the control group's files instead, as this machine's kernel has them")
    .addHelpText(
      'after',
      '\nPrints an object for one name and a list for several. "status" is as CRI has it (an image under\n' +
        '"image"), "info" what the daemon adds.\n' +
        'With --cgroup: of a container its own control group, of a pod the one that its parts are in.\n' +
        "\nExamples:\n  berth inspect default/web | jq -r '.status.network.ip'\n  berth inspect busybox:1.36\n",
    )
    .action((words: string[], { cgroup }: { cgroup?: true }) =>
      cgroup === true ? inspectCgroups(context(), words) : inspect(context(), words),
    );
}

async function inspect(context: Context, words: string[]): Promise<void> {
  const client = await context.client();
  const all = await inventory(client);
  const found: object[] = [];
  for (const word of words) {
    try {
      found.push(await inspectTarget(client, resolve(word, all, ['pod', 'container'])));
    } catch (e: unknown) {
      if (kindOf(e) !== 'notFound') throw e;
      found.push(await inspectImage(client, word));
    }
  }
  writeJson(context, found.length === 1 ? found[0] : found);
}

async function inspectTarget(client: Client, target: Target) {
  const request = { verbose: true };
  const { status, info } =
    target.kind === 'pod'
      ? await client.runtime('PodSandboxStatus', { pod_sandbox_id: target.pod.id, ...request })
      : await client.runtime('ContainerStatus', { container_id: target.container.id, ...request });
  return { kind: target.kind, status, info: parseInfo(info) };
}

async function inspectCgroups(context: Context, words: string[]): Promise<void> {
  const client = await context.client();
  const all = await inventory(client);
  const found: object[] = [];
  for (const word of words) found.push(await inspectCgroup(client, all, word));
  writeJson(context, found.length === 1 ? found[0] : found);
}

/** @throws BerthError precondition when there is none, as after a container's end */
async function inspectCgroup(client: Client, all: Inventory, word: string): Promise<object> {
  const target = resolve(word, all, ['pod', 'container']);
  const { kind, status, info } = await inspectTarget(client, target);
  const own = cgroupOf(info);
  if (own === undefined) {
    throw new BerthError('unimplemented', `the daemon does not tell the cgroup of ${JSON.stringify(word)}`);
  }
  // The pause process of a pod that has one is in a cgroup of its own, beside those of the containers.
  const isPause = kind === 'pod' && path.basename(own).includes(status?.id ?? '/');
  const at = isPause ? path.dirname(own) : own;
  const { mode, dump } = detectCgroups();
  const directories = dump(at);
  if (directories.length === 0) {
    throw new BerthError(
      'precondition',
      `${kind} ${JSON.stringify(word)} has no cgroup ${at} on this machine`,
    );
  }
  return { kind, id: status?.id, mode, path: at, directories };
}

/** Within each hierarchy. */
function cgroupOf({ info }: Record<string, unknown>): string | undefined {
  if (typeof info !== 'object' || info === null || !('cgroup' in info)) return undefined;
  return typeof info.cgroup === 'string' ? info.cgroup : undefined;
}

async function inspectImage(client: Client, word: string): Promise<object> {
  // A word that is no image name either is refused as such by the daemon; the user meant any of the three.
  const id = await resolveImage(client, word).catch((e: unknown) => {
    if (kindOf(e) === 'notFound' || kindOf(e) === 'invalid') return undefined;
    throw e;
  });
  if (id === undefined) throw notFound(`pod, container or image ${JSON.stringify(word)}`);
  const { image, info } = await client.image('ImageStatus', { image: { image: id }, verbose: true });
  return { kind: 'image', image, info: parseInfo(info) };
}

/** Daemons put JSON into the values of this map; what is none stays text. */
export function parseInfo(info: Record<string, string>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(info).map(([key, text]): [string, unknown] => {
      try {
        return [key, JSON.parse(text)];
      } catch {
        return [key, text];
      }
    }),
  );
}
