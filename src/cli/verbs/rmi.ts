import type { Command } from 'commander';
import { notFound } from '../../errors.ts';
import type { Client } from '../client.ts';
import type { Context } from '../context.ts';
import { UsageError } from '../errors.ts';
import { forEach } from '../lifecycle.ts';
import { shortId } from '../output.ts';

export function configure(command: Command, context: () => Context): void {
  command
    .description('Removes images with all their names. Running containers keep what they use.')
    .argument('<image...>', 'names, ids or beginnings of ids')
    .addHelpText('after', '\nExamples:\n  berth rmi busybox:1.36\n  berth images -q | xargs berth rmi\n')
    .action((images: string[]) => remove(context(), images));
}

async function remove(context: Context, images: string[]): Promise<void> {
  const client = await context.client();
  await forEach(images, async (word) => {
    const id = await resolveImage(client, word);
    await client.image('RemoveImage', { image: { image: id } });
    context.stdout.write(`${id}\n`);
  });
}

/** The id of the image that has this name, id or beginning of an id. @throws BerthError notFound, UsageError */
export async function resolveImage(client: Client, word: string): Promise<string> {
  const id = await imageOfPrefix(client, word);
  if (id !== undefined) return id;
  // Only the daemon knows how it completes short names.
  const { image } = await client.image('ImageStatus', { image: { image: word } });
  if (image === null) throw notFound(`image ${JSON.stringify(word)}`);
  return image.id;
}

/** The id of the image whose id begins so, if there is one. @throws UsageError when there are several */
export async function imageOfPrefix(client: Client, word: string): Promise<string | undefined> {
  const prefix = word.replace(/^sha256:/, '');
  if (!/^[0-9a-f]{1,64}$/.test(prefix)) return undefined;
  const { images } = await client.image('ListImages', {});
  const found = images.filter(({ id }) => id.replace(/^sha256:/, '').startsWith(prefix));
  if (found.length > 1) {
    const list = found.map(({ id, repo_tags }) => `  ${shortId(id)}  ${repo_tags.join(' ')}`);
    throw new UsageError(`${JSON.stringify(word)} means more than one image:\n${list.join('\n')}`);
  }
  return found[0]?.id;
}
