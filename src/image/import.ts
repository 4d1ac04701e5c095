import { Readable } from 'node:stream';
import { z } from 'zod';
import { BerthError } from '../errors.ts';
import { Archive } from './archive.ts';
import { assemble, type ImageDeps, type Progress } from './assemble.ts';
import { type BlobSource, MAX_BLOB_BYTES } from './fetches.ts';
import {
  choosePlatform,
  type Descriptor,
  type IndexEntry,
  MAX_MANIFEST_BYTES,
  type Manifest,
  MEDIA_TYPES,
  NAME_ANNOTATIONS,
  parseDocument,
  resolveManifest,
  type StoredDocument,
} from './manifest.ts';
import { platformMatch } from './platform.ts';
import { parseReference, repository, taggedName } from './reference.ts';
import { Semaphore } from './semaphore.ts';
import type { Image } from './types.ts';
import { detectCompression } from './unpack/decompress.ts';

export interface ImportOptions {
  /** A name for the image of an archive with a single one; instead of the archive's own. */
  name?: string;
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** What `docker save` writes (moby image/spec, v1.2, "manifest.json"). */
const dockerManifestSchema = z
  .array(
    z.object({
      Config: z.string(),
      RepoTags: z.array(z.string()).nullish(),
      Layers: z.array(z.string()).max(500).nullish(),
    }),
  )
  .min(1)
  .max(1000);
type DockerItem = z.infer<typeof dockerManifestSchema>[number];

/**
 * Imports all images of an archive: an OCI layout (OCI image-spec, image-layout.md) or what `docker save`
 * writes, as tar, plain or compressed. Names come from the caller, from annotations of the index or from
 * RepoTags; an image without any can be used by its id.
 *
 * @returns the images, in the archive's order
 * @throws BerthError `invalid` for an archive that is neither or whose content is not what it claims. Of an
 * archive of several images, those before the bad one stay.
 */
export async function importArchive(
  deps: ImageDeps,
  stream: AsyncIterable<Uint8Array>,
  options: ImportOptions,
): Promise<Image[]> {
  const signal = options.signal ?? new AbortController().signal;
  const name = options.name === undefined ? undefined : parseReference(options.name);
  if (name?.digest !== undefined)
    throw new BerthError('invalid', 'name: an imported image cannot be given a digest');
  const archive = await Archive.spool(deps.content, stream, signal);
  try {
    const job = { deps, archive, signal, name: options.name, onProgress: options.onProgress };
    // Docker from 25 on writes both; the index has digests of everything.
    if (archive.has('index.json')) return await importLayout(job);
    if (archive.has('manifest.json')) return await importDocker(job);
    throw new BerthError('invalid', 'archive: has neither index.json (OCI) nor manifest.json (docker save)');
  } finally {
    await archive.close();
  }
}

interface Job {
  deps: ImageDeps;
  archive: Archive;
  signal: AbortSignal;
  name: string | undefined;
  onProgress: ((progress: Progress) => void) | undefined;
}

async function importLayout(job: Job): Promise<Image[]> {
  const { archive, deps, name } = job;
  const index = parseDocument(await archive.read('index.json', MAX_MANIFEST_BYTES), 'archive: index.json');
  if (index.kind !== 'index') throw new BerthError('invalid', 'archive: index.json is no index');
  const images = chooseImages(index.entries, job);
  if (name !== undefined && images.length > 1) {
    throw new BerthError(
      'invalid',
      `archive: has ${images.length} images, which cannot all be named "${name}"`,
    );
  }
  const results = new Map<string, Image>();
  for (const entry of images) {
    using leases = new DisposableStack();
    const documents: string[] = [];
    const manifest = await findManifest(job, entry, documents, leases);
    const names = name === undefined ? layoutNames(entry) : [name];
    const image = await assemble(deps, {
      what: `archive: image ${entry.digest}`,
      manifest,
      documents,
      names: names.flatMap((text) => allNames(text, entry.digest)),
      source: sourceOf(archive),
      signal: job.signal,
      ...(job.onProgress === undefined ? {} : { onProgress: job.onProgress }),
    });
    results.set(image.id, image);
  }
  return Array.from(results.values(), (image) => deps.store.get(image.id) ?? image);
}

/** Named entries are images of their own; the unnamed are the platforms of one. Other platforms are left out. */
function chooseImages(entries: readonly IndexEntry[], { deps }: Job): IndexEntry[] {
  const named = entries.filter((entry) => layoutNames(entry).length > 0);
  const fitting = named.filter(({ platform }) => {
    if (platform === undefined) return true;
    const { os, architecture, variant } = platform;
    return platformMatch({ os, architecture, ...(variant ? { variant } : {}) }, deps.platform) !== undefined;
  });
  if (fitting.length > 0) return fitting;
  return [choosePlatform(entries, deps.platform, 'archive')];
}

/** Stores the document of an index entry, and from an index on to the manifest for this machine. */
async function findManifest(
  { deps, archive, signal }: Job,
  top: Descriptor,
  documents: string[],
  leases: DisposableStack,
): Promise<Manifest> {
  const what = `archive: image ${top.digest}`;
  const get = async (entry: Descriptor): Promise<StoredDocument> => {
    if (entry.size > MAX_MANIFEST_BYTES) {
      throw new BerthError('invalid', `${what}: a manifest of more than ${MAX_MANIFEST_BYTES} bytes`);
    }
    leases.use(deps.leases.hold(entry.digest));
    await deps.fetches.get(sourceOf(archive), entry, signal);
    documents.push(entry.digest);
    return { ...entry, bytes: await deps.content.read(entry.digest, MAX_MANIFEST_BYTES) };
  };
  return resolveManifest(await get(top), deps.platform, what, get);
}

async function importDocker(job: Job): Promise<Image[]> {
  const { archive, deps, name } = job;
  const listed = await readDockerManifest(archive);
  if (name !== undefined && listed.length > 1) {
    throw new BerthError(
      'invalid',
      `archive: has ${listed.length} images, which cannot all be named "${name}"`,
    );
  }
  const results: Image[] = [];
  for (const item of listed) {
    using leases = new DisposableStack();
    const { manifest, digest } = await storeDocker(job, item, leases);
    const names = name === undefined ? (item.RepoTags ?? []) : [name];
    results.push(
      await assemble(deps, {
        what: `archive: image "${item.Config.slice(0, 100)}"`,
        manifest,
        documents: [digest],
        names: names.flatMap((text) => allNames(text, digest)),
        source: sourceOf(archive),
        signal: job.signal,
        ...(job.onProgress === undefined ? {} : { onProgress: job.onProgress }),
      }),
    );
  }
  return results.map((image) => deps.store.get(image.id) ?? image);
}

/**
 * Stores an image of a format without digests: everything gets the one that its bytes have, and the image a
 * manifest, as every other has one.
 */
async function storeDocker(
  { deps, archive, signal }: Job,
  item: DockerItem,
  leases: DisposableStack,
): Promise<{ manifest: Manifest; digest: string }> {
  const hold = (digest: string): void => {
    leases.use(deps.leases.hold(digest));
  };
  const store = async (entry: string, limit: number, mediaType: string): Promise<Descriptor> => {
    signal.throwIfAborted();
    return { mediaType, ...(await deps.content.write(archive.stream(entry), { limit }, { hold })) };
  };
  const config = await store(item.Config, MAX_MANIFEST_BYTES, MEDIA_TYPES.ociConfig);
  const layers: Descriptor[] = [];
  for (const entry of item.Layers ?? []) {
    const compression = detectCompression(await archive.start(entry));
    const suffix = compression === 'none' ? '' : `+${compression}`;
    layers.push(await store(entry, MAX_BLOB_BYTES, `${MEDIA_TYPES.ociLayer}${suffix}`));
  }
  const manifest = { schemaVersion: 2, mediaType: MEDIA_TYPES.ociManifest, config, layers };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const { digest } = await deps.content.write(
    Readable.from([bytes]),
    { limit: MAX_MANIFEST_BYTES },
    { hold },
  );
  return { manifest, digest };
}

async function readDockerManifest(archive: Archive): Promise<DockerItem[]> {
  const text = (await archive.read('manifest.json', MAX_MANIFEST_BYTES)).toString('utf8');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (e: unknown) {
    throw new BerthError('invalid', 'archive: manifest.json is no JSON', { cause: e });
  }
  const result = dockerManifestSchema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new BerthError('invalid', `archive: manifest.json: ${issue?.path.join('.')}: ${issue?.message}`);
}

function sourceOf(archive: Archive): BlobSource {
  return {
    fetch: (descriptor) => archive.stream(`blobs/${descriptor.digest.replace(':', '/')}`),
    slots: new Semaphore(1),
  };
}

/**
 * containerd's annotation is a whole name. OCI's often is only a tag (image-spec, annotations.md), which
 * names nothing without a repository.
 */
function layoutNames(entry: IndexEntry): string[] {
  const whole = entry.annotations?.[NAME_ANNOTATIONS.containerd];
  if (whole !== undefined) return [whole];
  const ref = entry.annotations?.[NAME_ANNOTATIONS.oci];
  return ref !== undefined && /[/:]/.test(ref) ? [ref] : [];
}

/** The tag and the digest under which an image of an OCI layout is known. */
function allNames(text: string, digest: string): string[] {
  const reference = parseReference(text);
  const tag = taggedName(reference);
  return [...(tag === undefined ? [] : [tag]), `${repository(reference)}@${digest}`];
}
