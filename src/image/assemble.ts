import { BerthError, kindOf } from '../errors.ts';
import type { Faults } from '../faults.ts';
import { orAborted } from '../util/abort.ts';
import type { ContentStore } from './content.ts';
import type { BlobSource, Fetches } from './fetches.ts';
import type { LayerStore } from './layers.ts';
import type { Leases } from './leases.ts';
import { chainIds, type Descriptor, MAX_MANIFEST_BYTES, type Manifest, parseConfig } from './manifest.ts';
import { formatPlatform, type Platform, platformMatch } from './platform.ts';
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
  fetches: Fetches;
}

/**
 * How far one layer is. `waiting` is for a turn to download, `exists` for one that is here already; `unpack`
 * begins for the reader when the download has ended, though much of it may be done by then.
 */
export interface Progress {
  digest: string;
  /** Bytes of the blob. */
  totalBytes: number;
  /** Bytes of the blob that arrived. */
  doneBytes: number;
  phase: 'waiting' | 'download' | 'unpack' | 'done' | 'exists';
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
  for (const { digest } of [manifest.config, ...manifest.layers]) leases.use(deps.leases.hold(digest));
  if (manifest.config.size > MAX_MANIFEST_BYTES) {
    throw new BerthError(
      'exhausted',
      `${what}: a config of ${manifest.config.size} bytes, more than ${MAX_MANIFEST_BYTES}`,
    );
  }
  await deps.fetches.get(source, manifest.config, assembly.signal);
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
  await getLayers(deps, assembly, chain, config.diffIds);
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
): Promise<void> {
  const failure = new AbortController();
  const signal = AbortSignal.any([assembly.signal, failure.signal]);
  const tasks: Promise<void>[] = [];
  for (const [i, layer] of assembly.manifest.layers.entries()) {
    const belowReady = Promise.all(tasks);
    // Whoever needs it awaits it; a layer that fails first has not got that far.
    belowReady.catch(() => {});
    const task = getLayer(deps, {
      layer,
      chainId: chain[i] ?? '',
      diffId: diffIds[i] ?? '',
      below: chain.slice(0, i),
      belowReady,
      source: assembly.source,
      signal,
      report: assembly.onProgress ?? (() => {}),
    });
    tasks.push(
      task.catch((e: unknown) => {
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

/** What is to be done about one layer. */
interface LayerTask {
  layer: Descriptor;
  chainId: string;
  diffId: string;
  /** Chain IDs of the layers below, base first, and when they are there. */
  below: readonly string[];
  belowReady: Promise<unknown>;
  source: BlobSource;
  signal: AbortSignal;
  report: (progress: Progress) => void;
}

/** Gets a layer's blob and unpacks it, the latter while the former goes on. */
async function getLayer(deps: ImageDeps, task: LayerTask): Promise<void> {
  const { layer, signal } = task;
  const tell = (phase: Progress['phase'], doneBytes = layer.size): void =>
    task.report({ digest: layer.digest, totalBytes: layer.size, doneBytes, phase });
  if (deps.content.size(layer.digest) !== undefined && deps.layers.has(task.chainId)) {
    tell('exists');
    return;
  }
  tell('waiting', 0);
  // What it joined may fail for reasons that are another pull's; then it goes on by itself.
  while (!(await tryLayer(deps, task, tell))) signal.throwIfAborted();
  await deps.faults.at('PullImage.layer');
  tell('done');
}

/** @returns false when a fetch that another pull had begun failed */
async function tryLayer(
  deps: ImageDeps,
  { layer, chainId, diffId, below, belowReady, source, signal }: LayerTask,
  tell: (phase: Progress['phase'], doneBytes?: number) => void,
): Promise<boolean> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const fetch = deps.fetches.begin(source, layer, both, (bytes) => tell('download', bytes));
  const fetched = orAborted(fetch.done, both).then(
    () => tell('unpack'),
    (e: unknown) => {
      stop.abort(e);
      throw e;
    },
  );
  fetched.catch(() => {});
  const job = { chainId, diffId, below, belowReady, blob: fetch.growth, blobBytes: layer.size, signal: both };
  let unpackingFailedFirst = false;
  const unpacked = deps.layers.ensure({ ...job, stored: fetched }).catch((e: unknown) => {
    unpackingFailedFirst = !both.aborted;
    // A damaged download is told by its digest, which says more than what the unpacking stumbled over.
    if (kindOf(e) !== 'invalid') stop.abort(e);
    throw e;
  });
  const [fetching, unpacking] = await Promise.allSettled([fetched, unpacked]);
  // Its own fetch must have put away what it began.
  if (!fetch.isJoined) await fetch.done.catch(() => {});
  signal.throwIfAborted();
  // Whichever failed first stopped the other with its own error.
  if (fetching.status === 'rejected') {
    if (fetch.isJoined && !unpackingFailedFirst) return false;
    throw fetching.reason;
  }
  if (unpacking.status === 'rejected') throw unpacking.reason;
  return true;
}
