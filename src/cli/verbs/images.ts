import type { Command } from 'commander';
import type { Image__Output as Image } from '../../../proto/gen/runtime/v1/Image.ts';
import type { Context } from '../context.ts';
import { imageTree } from '../image-tree.ts';
import { shortId, writeJson, writeList } from '../output.ts';
import { formatBytes } from '../units.ts';

interface Options {
  quiet?: boolean;
  trunc: boolean;
  tree?: boolean;
}

/** A name of an image; one image has a line for each of its names. */
interface Row {
  image: Image;
  repository: string;
  tag: string;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description('Lists images.')
    .option('-q, --quiet', 'ids only')
    .option('--no-trunc', 'whole ids')
    .option('--tree', 'show which layers images share')
    .addHelpText('after', '\nExamples:\n  berth images\n  berth images --tree\n  berth images -o json\n')
    .action((options: Options) => list(context(), options));
}

async function list(context: Context, options: Options): Promise<void> {
  const client = await context.client();
  if (options.tree) {
    const usage = await client.diskUsage();
    return context.output === 'json'
      ? writeJson(context, usage)
      : void context.stdout.write(imageTree(usage));
  }
  const { images } = await client.image('ListImages', {});
  if (context.output === 'json') return writeJson(context, images);
  const id = (image: Image) => shortId(image.id, !options.trunc);
  if (options.quiet) {
    context.stdout.write(images.map((image) => `${id(image)}\n`).join(''));
    return;
  }
  const rows = images.flatMap(rowsOf).sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  const row = ({ image, repository, tag }: Row) => [
    repository,
    tag,
    id(image),
    formatBytes(BigInt(image.size)),
    image.pinned ? 'yes' : '',
  ];
  writeList(context, rows, {
    head: ['IMAGE', 'TAG', 'ID', 'SIZE', 'PINNED'],
    row,
    id: ({ image }) => id(image),
  });
}

function rowsOf(image: Image): Row[] {
  const tags = image.repo_tags.map((name) => {
    const colon = name.lastIndexOf(':');
    return { image, repository: name.slice(0, colon), tag: name.slice(colon + 1) };
  });
  if (tags.length > 0) return tags;
  const digest = image.repo_digests[0]?.split('@')[0];
  return [{ image, repository: digest ?? '<none>', tag: '<none>' }];
}

function nameOf({ repository, tag, image }: Row): string {
  return `${repository}:${tag} ${image.id}`;
}
