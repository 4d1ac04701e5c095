import { createHash } from 'node:crypto';
import { BerthError } from '../errors.ts';
import { hostPlatform } from './platform.ts';
import { listTree, packTree, type Tree } from './tar/pack.ts';
import { printable } from './tar/reader.ts';
import { END_OF_ARCHIVE, paddingAfter, tarHeader } from './tar/writer.ts';
import type { ImageConfig } from './types.ts';

/** What an image that is made of a directory says of itself. */
export interface RootfsOptions {
  /** Its name with tag. */
  name: string;
  config: Partial<Omit<ImageConfig, 'os' | 'architecture'>>;
  /** Seconds since 1970: when it was made, and the latest time of its files. Default: it does not say. */
  epoch?: number;
}

/**
 * An archive, as of `docker save`, of an image with one layer: what is below `directory`. The layer is not
 * compressed, so that its digest does not depend on a compressor: the same directory and options always give
 * the same image.
 *
 * @throws BerthError `invalid` for files that a layer cannot hold
 */
export async function* rootfsArchive(
  directory: string,
  { name, config, epoch }: RootfsOptions,
): AsyncGenerator<Buffer> {
  const tree = await listTree(directory, epoch);
  refuseWhiteouts(tree);
  yield tarHeader({ name: 'layer.tar', type: 'file', size: tree.bytes });
  const hash = createHash('sha256');
  for await (const piece of packTree(tree)) {
    hash.update(piece);
    yield piece;
  }
  yield paddingAfter(tree.bytes);
  const created = epoch === undefined ? {} : { created: new Date(epoch * 1000).toISOString() };
  const document = {
    ...created,
    ...hostPlatform(),
    config: membersOf(config),
    rootfs: { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] },
    history: [{ ...created, created_by: 'berth build-rootfs' }],
  };
  yield textEntry('config.json', document);
  yield textEntry('manifest.json', [{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }]);
  yield END_OF_ARCHIVE;
}

/** As in the image-spec's config.md; what is empty is left out. */
function membersOf(config: RootfsOptions['config']): object {
  const members: Record<string, unknown> = {
    User: config.user,
    Env: config.env,
    Entrypoint: config.entrypoint,
    Cmd: config.cmd,
    Volumes: Object.fromEntries((config.volumes ?? []).toSorted().map((path) => [path, {}])),
    WorkingDir: config.workingDir,
    Labels: Object.fromEntries(Object.entries(config.labels ?? {}).sort()),
    StopSignal: config.stopSignal,
  };
  const isEmpty = (value: unknown): boolean =>
    value === undefined ||
    value === '' ||
    (typeof value === 'object' && Object.keys(value ?? {}).length === 0);
  return Object.fromEntries(Object.entries(members).filter(([, value]) => !isEmpty(value)));
}

function textEntry(name: string, content: object): Buffer {
  const bytes = Buffer.from(JSON.stringify(content));
  const header = tarHeader({ name, type: 'file', size: bytes.length });
  return Buffer.concat([header, bytes, paddingAfter(bytes.length)]);
}

/** In a layer these hide files instead of being some. */
function refuseWhiteouts({ entries }: Tree): void {
  for (const { entry } of entries) {
    const isHiding = entry.type === 'character-device' && entry.devMajor === 0 && entry.devMinor === 0;
    if (!isHiding && !/(^|\/)\.wh\./.test(entry.name)) continue;
    throw new BerthError(
      'invalid',
      `${printable(entry.name)}: would hide files in a layer instead of being one`,
    );
  }
}
