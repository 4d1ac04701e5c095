import { createHash } from 'node:crypto';
import { BerthError, notFound } from '../errors.ts';
import type { ImageDeps } from './assemble.ts';
import {
  type Descriptor,
  MAX_MANIFEST_BYTES,
  type Manifest,
  MEDIA_TYPES,
  NAME_ANNOTATIONS,
  parseDocument,
  resolveManifest,
  type StoredDocument,
} from './manifest.ts';
import { isImageId, parseReference, repository, taggedName } from './reference.ts';
import { resolve } from './status.ts';
import { END_OF_ARCHIVE, paddingAfter, tarHeader } from './tar/writer.ts';
import type { Image } from './types.ts';

/** Bytes that are read at once, and sent as one message. */
const CHUNK = 256 * 1024;
/** Images of one archive. */
const MAX_IMAGES = 1000;

/** A small file of the archive. */
type TextFile = readonly [name: string, content: string];

/** An image to be written, under these names. */
interface Item {
  image: Image;
  names: readonly string[];
  /** The index or manifest that the names mean. */
  top: StoredDocument;
  manifest: Manifest;
  /** Of `top`, of what leads from it to the manifest, and of all that the manifest names. */
  digests: readonly string[];
}

/**
 * The images that ids or names mean as one tar archive, which is an OCI layout (OCI image-spec,
 * image-layout.md) and has the `manifest.json` of `docker save` beside it, as containerd and Docker 25 write
 * it. Blobs are those that were pulled or imported, byte by byte: an index stays one and keeps its digest,
 * though of its manifests only this machine's are here. The same images always give the same bytes.
 *
 * An id means all tags of the image.
 *
 * @throws BerthError `notFound` for an image that is not here, before the first byte; `internal` when the disk
 * has changed a blob
 */
export async function* exportImages(
  deps: ImageDeps,
  refs: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (refs.length === 0) throw new BerthError('invalid', 'images: must name at least one image');
  if (refs.length > MAX_IMAGES) throw new BerthError('invalid', `images: must be at most ${MAX_IMAGES}`);
  using leases = new DisposableStack();
  const items: Item[] = [];
  for (const ref of refs) items.push(await findItem(deps, ref, leases));
  for (const [name, content] of textFiles(items)) {
    const bytes = Buffer.from(content);
    yield Buffer.concat([
      tarHeader({ name, type: 'file', size: bytes.length }),
      bytes,
      paddingAfter(bytes.length),
    ]);
  }
  const digests = [...new Set(items.flatMap((item) => item.digests))].sort();
  const folders = [...new Set(digests.map((digest) => digest.slice(0, digest.indexOf(':'))))];
  for (const name of ['blobs/', ...folders.map((algorithm) => `blobs/${algorithm}/`)]) {
    yield tarHeader({ name, type: 'directory', mode: 0o755 });
  }
  for (const digest of digests) yield* blobEntry(deps, digest, signal);
  yield END_OF_ARCHIVE;
}

async function findItem(deps: ImageDeps, ref: string, leases: DisposableStack): Promise<Item> {
  const image = resolve(deps.store, ref);
  if (image === undefined) throw notFound(`image ${JSON.stringify(ref)}`);
  const names = isImageId(ref) ? image.repoTags : [nameOf(ref)];
  // In the turn in which it was found, so that collection finds them held.
  const stored = deps.store.blobs(image.id);
  for (const digest of stored) leases.use(deps.leases.hold(digest));
  for (const digest of candidates(image, stored, names)) {
    const item = await itemOf(deps, image, digest);
    if (item !== undefined) return { ...item, image, names };
  }
  throw new BerthError('precondition', `image ${image.id} has no manifest here; import or pull it again`);
}

/** As it was asked for: by digest alone when there was one. */
function nameOf(ref: string): string {
  const reference = parseReference(ref);
  const byDigest = `${repository(reference)}@${reference.digest}`;
  return reference.digest === undefined ? (taggedName(reference) ?? ref) : byDigest;
}

/** Blobs that may be the index or manifest that the names mean, likely ones first. */
function candidates(image: Image, stored: readonly string[], names: readonly string[]): Set<string> {
  const repositories = new Set(names.map((name) => repository(parseReference(name))));
  const own = image.repoDigests.map((name) => name.split('@') as [string, string]);
  const ofRepository = own.filter(([name]) => repositories.has(name));
  const asked = names.flatMap((name) => parseReference(name).digest ?? []);
  return new Set([...asked, ...[...ofRepository, ...own].map(([, digest]) => digest), ...stored]);
}

/** Undefined for a blob that is no index or manifest of the image. */
async function itemOf(
  { content, platform }: ImageDeps,
  image: Image,
  digest: string,
): Promise<Pick<Item, 'top' | 'manifest' | 'digests'> | undefined> {
  const size = content.size(digest);
  if (size === undefined || size > MAX_MANIFEST_BYTES || digest === image.id) return undefined;
  const digests: string[] = [];
  const get = async (entry: Pick<Descriptor, 'digest' | 'mediaType'>): Promise<StoredDocument> => {
    digests.push(entry.digest);
    const { digest, mediaType } = entry;
    return { digest, mediaType, bytes: await content.read(digest, MAX_MANIFEST_BYTES) };
  };
  const top = await get({ digest, mediaType: '' });
  if (top.bytes[0] !== '{'.charCodeAt(0)) return undefined;
  try {
    const manifest = await resolveManifest(top, platform, digest, get);
    if (manifest.config.digest !== image.id) return undefined;
    digests.push(manifest.config.digest, ...manifest.layers.map((layer) => layer.digest));
    return { top, manifest, digests };
  } catch (e: unknown) {
    // Another platform's, or a layer that begins as JSON does.
    if (e instanceof BerthError) return undefined;
    throw e;
  }
}

function textFiles(items: readonly Item[]): TextFile[] {
  const manifests = items.flatMap(({ top, names }) => {
    const descriptor = { mediaType: mediaTypeOf(top), digest: top.digest, size: top.bytes.length };
    const named = names.map((name) => ({ ...descriptor, annotations: annotationsOf(name) }));
    return named.length > 0 ? named : [descriptor];
  });
  const byImage = Map.groupBy(items, ({ image }) => image.id);
  const docker = Array.from(byImage, ([id, [first, ...rest]]) => ({
    Config: pathOf(id),
    RepoTags: [first, ...rest].flatMap((item) => item?.names ?? []).filter((name) => !name.includes('@')),
    Layers: first?.manifest.layers.map((layer) => pathOf(layer.digest)) ?? [],
  }));
  const index = { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests };
  return [
    ['oci-layout', JSON.stringify({ imageLayoutVersion: '1.0.0' })],
    ['index.json', JSON.stringify(index)],
    ['manifest.json', JSON.stringify(docker)],
  ];
}

/** What containerd writes: the whole name, and its tag or digest alone, as OCI's annotation is read by most. */
function annotationsOf(name: string): Record<string, string> {
  const { tag, digest } = parseReference(name);
  return { [NAME_ANNOTATIONS.containerd]: name, [NAME_ANNOTATIONS.oci]: digest ?? tag ?? '' };
}

function mediaTypeOf({ bytes, digest }: StoredDocument): string {
  const json: unknown = JSON.parse(bytes.toString('utf8'));
  if (typeof json === 'object' && json !== null && 'mediaType' in json && typeof json.mediaType === 'string')
    return json.mediaType;
  return parseDocument(bytes, digest).kind === 'index' ? MEDIA_TYPES.ociIndex : MEDIA_TYPES.ociManifest;
}

function pathOf(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

async function* blobEntry(
  { content }: ImageDeps,
  digest: string,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const stored = content.stored(digest);
  const size = stored.bytes;
  const file = await stored.open();
  try {
    yield tarHeader({ name: pathOf(digest), type: 'file', size });
    const hash = createHash(digest.slice(0, digest.indexOf(':')));
    let done = 0;
    for await (const chunk of file.createReadStream({ autoClose: false, highWaterMark: CHUNK })) {
      signal.throwIfAborted();
      hash.update(chunk as Buffer);
      done += (chunk as Buffer).length;
      if (done <= size) yield chunk as Buffer;
    }
    if (done !== size || !digest.endsWith(`:${hash.digest('hex')}`))
      throw new BerthError(
        'internal',
        `blob ${digest} has been changed on disk; remove the image and pull it`,
      );
    yield paddingAfter(size);
  } finally {
    await file.close();
  }
}
