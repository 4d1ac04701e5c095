import { BerthError } from '../errors.ts';
import type { Faults } from '../faults.ts';
import type { SingleFlight } from '../util/single-flight.ts';
import type { ContentStore } from './content.ts';
import { joinOrDo } from './join.ts';
import type { LayerStore } from './layers.ts';
import type { Leases } from './leases.ts';
import { chainIds, type Descriptor, MAX_MANIFEST_BYTES, type Manifest, parseConfig } from './manifest.ts';
import { formatPlatform, type Platform, platformMatch } from './platform.ts';
import type { Semaphore } from './semaphore.ts';
import type { ImageStore } from './store.ts';
import type { Image } from './types.ts';

/** What pull and import share: where images go. */
export interface ImageDeps {
  content: ContentStore;
  layers: LayerStore;
  leases: Leases;
  store: ImageStore;
  platform: Platform;
  faults: Faults;
  /** Blobs being fetched, by digest. */
  fetching: SingleFlight<void>;
}

/** How far one blob is. `phase` `done` is reported once, also for what was there already. */
export interface Progress {
  digest: string;
  /** Bytes of the blob. */
  totalBytes: number;
  /** While downloading, bytes of the blob that arrived; while unpacking, all of them. */
  doneBytes: number;
  phase: 'download' | 'unpack' | 'done';
}

/** Where blobs come from. */
export interface BlobSource {
  /** The bytes of a blob, not yet verified. */
  fetch(descriptor: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Bounds how many blobs are fetched at once. */
  slots: Semaphore;
}

/** An image to be made of a manifest. */
export interface Assembly {
  /** How errors call it. */
  what: string;
  manifest: Manifest;
  /** Digests of blobs already stored and held: manifest and index. */
  documents: readonly string[];
  names: readonly string[];
  source: BlobSource;
  signal: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** Bytes of one layer blob; far above what registries take. */
const MAX_LAYER_BYTES = 128 * 2 ** 30;

/**
 * Gets what a manifest names, unpacks its layers and records the image. When it fails, everything it began
 * has ended by the time it throws; what was fetched by then is left to collection.
 *
 * @throws BerthError `invalid` for content that is not what it claims, `notFound` for another platform
 */
export async function assemble(deps: ImageDeps, assembly: Assembly): Promise<Image> {
  const { manifest, what, source, documents } = assembly;
  const { content } = deps;
  using leases = new DisposableStack();
  const fetch = (descriptor: Descriptor, signal: AbortSignal): Promise<void> => {
    leases.use(deps.leases.hold(descriptor.digest));
    return fetchBlob(deps, source, descriptor, signal, assembly.onProgress);
  };
  if (manifest.config.size > MAX_MANIFEST_BYTES) {
    throw new BerthError(
      'exhausted',
      `${what}: a config of ${manifest.config.size} bytes, more than ${MAX_MANIFEST_BYTES}`,
    );
  }
  await fetch(manifest.config, assembly.signal);
  const config = parseConfig(
    await content.read(manifest.config.digest, MAX_MANIFEST_BYTES),
    `${what}: config`,
    manifest.layers.length,
  );
  // Where the config says nothing (some artifacts of old builders), the manifest's word stands.
  if (config.platform.os !== '' && platformMatch(config.platform, deps.platform) === undefined) {
    const [is, wanted] = [formatPlatform(config.platform), formatPlatform(deps.platform)];
    throw new BerthError('notFound', `${what}: an image for ${is}, not for ${wanted}`);
  }
  const chain = chainIds(config.diffIds);
  for (const chainId of chain) leases.use(deps.leases.hold(chainId));
  await getLayers(deps, assembly, chain, config.diffIds, fetch);
  const blobs = [...new Set([...documents, manifest.config.digest, ...manifest.layers.map((l) => l.digest)])];
  await deps.faults.at('PullImage.record');
  const image = deps.store.put({
    id: manifest.config.digest,
    size: blobs.reduce((sum, digest) => sum + (content.size(digest) ?? 0n), 0n),
    config: config.config,
    chainIds: chain,
    blobs,
    names: assembly.names,
  });
  await deps.faults.at('PullImage.recorded');
  return image;
}

/** All layers at once, within the bounds on fetching and unpacking; the first failure stops the others. */
async function getLayers(
  deps: ImageDeps,
  assembly: Assembly,
  chain: readonly string[],
  diffIds: readonly string[],
  fetch: (descriptor: Descriptor, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failure = new AbortController();
  const signal = AbortSignal.any([assembly.signal, failure.signal]);
  const report = assembly.onProgress ?? (() => {});
  const tasks: Promise<void>[] = [];
  for (const [i, layer] of assembly.manifest.layers.entries()) {
    const belowReady = Promise.all(tasks);
    // Whoever needs it awaits it; a layer that fails first has not got that far.
    belowReady.catch(() => {});
    const get = async (): Promise<void> => {
      await fetch(layer, signal);
      const progress = { digest: layer.digest, totalBytes: layer.size, doneBytes: layer.size };
      report({ ...progress, phase: 'unpack' });
      await deps.layers.ensure({
        chainId: chain[i] ?? '',
        diffId: diffIds[i] ?? '',
        blob: deps.content.path(layer.digest),
        below: chain.slice(0, i),
        belowReady,
        signal,
        onProgress: () => report({ ...progress, phase: 'unpack' }),
      });
      await deps.faults.at('PullImage.layer');
      report({ ...progress, phase: 'done' });
    };
    tasks.push(
      get().catch((e: unknown) => {
        failure.abort(new DOMException('another layer failed', 'AbortError'));
        throw e;
      }),
    );
  }
  const results = await Promise.allSettled(tasks);
  assembly.signal.throwIfAborted();
  // The one that caused the others' cancellation is the one to tell of.
  const reasons = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason as unknown] : [],
  );
  const cause = reasons.find((reason) => !isAbort(reason)) ?? reasons[0];
  if (cause !== undefined) throw cause;
}

function isAbort(e: unknown): boolean {
  return (
    (e instanceof Error && e.name === 'AbortError') || (e instanceof BerthError && e.kind === 'cancelled')
  );
}

/** Stores one blob unless it is there. The digest is held. */
export async function fetchBlob(
  deps: Pick<ImageDeps, 'content' | 'fetching' | 'faults'>,
  source: BlobSource,
  descriptor: Descriptor,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void = () => {},
): Promise<void> {
  const { digest, size } = descriptor;
  const isDone = (): boolean => deps.content.size(digest) !== undefined;
  const report = (doneBytes: number): void => {
    onProgress({ digest, totalBytes: size, doneBytes, phase: 'download' });
  };
  await joinOrDo(deps.fetching, digest, signal, isDone, () =>
    source.slots.run(signal, async () => {
      report(0);
      await deps.content.write(
        source.fetch(descriptor, signal),
        { digest, size, limit: MAX_LAYER_BYTES },
        report,
      );
      await deps.faults.at('PullImage.blob');
    }),
  );
}
