import type { Command } from 'commander';
import type { ImageUsage__Output as ImageUsage } from '../../../proto/gen/berth/v1/ImageUsage.ts';
import type { Context } from '../context.ts';
import { renderTable, shortId, writeJson } from '../output.ts';
import { formatBytes } from '../units.ts';

export function configure(command: Command, context: () => Context): void {
  command
    .description('Shows what images take of the disk, and what their removal would free.')
    .addHelpText(
      'after',
      '\nUNIQUE is what an image shares with no other. "berth gc" removes the garbage at once, "berth gc --images"\n' +
        'also images that are neither used nor pinned.\n\nExamples:\n  berth du\n  berth du -o json\n',
    )
    .action(() => du(context()));
}

async function du(context: Context): Promise<void> {
  const client = await context.client();
  const usage = await client.diskUsage();
  if (context.output === 'json') return writeJson(context, usage);
  const bytes = (text: string): string => formatBytes(BigInt(text));
  const images = usage.images.toSorted((a, b) => Number(BigInt(b.bytes) - BigInt(a.bytes)));
  context.stdout.write(
    renderTable(
      ['IMAGE', 'ID', 'SIZE', 'UNIQUE', 'LAYERS', 'STATE'],
      images.map((image) => [
        image.names[0] ?? '<none>',
        shortId(image.id),
        bytes(image.bytes),
        bytes(image.unique_bytes),
        String(image.layers.length),
        stateOf(image),
      ]),
    ),
  );
  const removable = images.filter((image) => stateOf(image) === '');
  const lines: [string, string][] = [
    ['Layers', `${bytes(usage.layer_bytes)} in ${usage.layers.length}`],
    ['Blobs', `${bytes(usage.blob_bytes)} in ${usage.blobs}`],
    ['Of removed images', `${bytes(usage.removed_bytes)}, used by containers`],
    ['Garbage', bytes(usage.garbage_bytes)],
    ['Unused images', String(removable.length)],
    ['Disk', `${bytes(usage.free_bytes)} free of ${bytes(usage.total_bytes)} at ${usage.mountpoint}`],
  ];
  context.stdout.write(`\n${lines.map(([name, text]) => `${`${name}:`.padEnd(19)}${text}\n`).join('')}`);
}

function stateOf({ in_use, pinned }: ImageUsage): string {
  return [...(in_use ? ['used'] : []), ...(pinned ? ['pinned'] : [])].join(', ');
}
