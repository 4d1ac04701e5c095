import type { Command } from 'commander';
import { kindOf, notFound } from '../../errors.ts';
import type { Client } from '../client.ts';
import type { Context } from '../context.ts';
import { writeJson } from '../output.ts';
import { inventory, resolve } from '../resolve.ts';
import { resolveImage } from './rmi.ts';

export function configure(command: Command, context: () => Context): void {
  command
    .description('Prints all that the daemon tells about pods, containers or images, as JSON.')
    .argument('<name...>', 'ids, beginnings of ids, or names')
    .addHelpText(
      'after',
      '\nPrints an object for one name and a list for several. "status" is as CRI has it (an image under\n' +
        '"image"), "info" what the daemon adds.\n' +
        "\nExamples:\n  berth inspect default/web | jq -r '.status.network.ip'\n  berth inspect busybox:1.36\n",
    )
    .action((words: string[]) => inspect(context(), words));
}

async function inspect(context: Context, words: string[]): Promise<void> {
  const client = await context.client();
  const all = await inventory(client);
  const found: object[] = [];
  for (const word of words) {
    try {
      const target = resolve(word, all, ['pod', 'container']);
      const request = { verbose: true };
      const answer =
        target.kind === 'pod'
          ? await client.runtime('PodSandboxStatus', { pod_sandbox_id: target.pod.id, ...request })
          : await client.runtime('ContainerStatus', { container_id: target.container.id, ...request });
      found.push({ kind: target.kind, status: answer.status, info: parseInfo(answer.info) });
    } catch (e: unknown) {
      if (kindOf(e) !== 'notFound') throw e;
      found.push(await inspectImage(client, word));
    }
  }
  writeJson(context, found.length === 1 ? found[0] : found);
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
