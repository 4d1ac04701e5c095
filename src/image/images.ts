import { BerthError, kindOf } from '../errors.ts';
import { type Faults, noFaults } from '../faults.ts';
import type { Logger } from '../log.ts';
import type { Database } from '../persist/database.ts';
import { globMatcher } from '../util/globs.ts';
import type { ImageDeps } from './assemble.ts';
import { collect } from './collect.ts';
import { ContentStore } from './content.ts';
import { exportImages } from './export.ts';
import { Fetches } from './fetches.ts';
import { fsInfo, type ImageFsUsage } from './fs-info.ts';
import { type ImportOptions, importArchive } from './import.ts';
import { LayerStore } from './layers.ts';
import { Leases } from './leases.ts';
import { list } from './list.ts';
import { MAX_MANIFEST_BYTES } from './manifest.ts';
import { hostPlatform, type Platform } from './platform.ts';
import { unusedImages } from './prune.ts';
import { type PullOptions, Pulls } from './pull.ts';
import type { RegistryAuth } from './registry/auth.ts';
import { CLOCKS, type Clocks } from './registry/http.ts';
import { Trust } from './registry/trust.ts';
import { remove } from './remove.ts';
import { SignaturePolicy, type SignatureRule } from './signature/policy.ts';
import { resolve } from './status.ts';
import { ImageStore } from './store.ts';
import type { Image } from './types.ts';
import { type DiskUsage, diskUsage } from './usage.ts';

/** Between two collections, milliseconds. */
const COLLECT_MS = 60_000;

export interface ImagesOptions {
  db: Database;
  /** Default: none. */
  faults?: Faults;
  /** Folder of images, absolute; made when missing. */
  root: string;
  /** Folder of `<host>/hosts.toml`; need not exist. */
  hostsDir: string;
  /** Globs of names that are never garbage. */
  pinnedGlobs: readonly string[];
  /** Default: every image is accepted. */
  signatures?: readonly SignatureRule[];
  logger: Logger;
  /** Default: this machine's. */
  platform?: Platform;
  /** Default: patient. */
  clocks?: Clocks;
  /** Ids of the images that containers use. Default: none. */
  used?: () => ReadonlySet<string>;
}

/** What pulls and imports are doing, and have done. */
export interface ImageActivity {
  /** Blobs being fetched, or waiting for their turn. */
  downloads: number;
  /** Layers. */
  unpackings: number;
  downloadedBytes: bigint;
  /** As allocated on disk. */
  unpackedBytes: bigint;
}

/** The images of this node: one method a verb, each in a file of its own. */
export class Images {
  readonly #options: ImagesOptions;
  readonly #deps: ImageDeps;
  readonly #pulls: Pulls;
  readonly #closing = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  readonly #used: () => ReadonlySet<string>;
  readonly #ticks: NodeJS.Timeout;

  constructor(options: ImagesOptions) {
    const { db, root, faults = noFaults } = options;
    this.#options = options;
    const content = new ContentStore(root, db);
    this.#deps = {
      content,
      layers: new LayerStore(root, db),
      leases: new Leases(),
      store: new ImageStore(db, globMatcher(options.pinnedGlobs)),
      platform: options.platform ?? hostPlatform(),
      faults,
      fetches: new Fetches(content, faults),
    };
    this.#used = options.used ?? (() => new Set());
    this.#ticks = setInterval(() => this.#collectLater(), COLLECT_MS).unref();
    const { hostsDir, clocks = CLOCKS, signatures = [] } = options;
    const registries = { hostsDir, clocks, trust: new Trust() };
    this.#pulls = new Pulls({ ...this.#deps, registries, signatures: new SignaturePolicy(signatures) });
  }

  /**
   * Pulls an image; the same one wanted twice at once is pulled once. Asks the registry even when the image is
   * there, as a tag may have moved.
   *
   * @throws BerthError as `Pulls.pull`
   */
  pull(ref: string, auth?: RegistryAuth, options: PullOptions = {}): Promise<Image> {
    return this.#run(options.signal, (signal) => this.#pulls.pull(ref, auth, { ...options, signal }));
  }

  /** See `importArchive`. */
  importArchive(stream: AsyncIterable<Uint8Array>, options: ImportOptions = {}): Promise<Image[]> {
    return this.#run(options.signal, (signal) => importArchive(this.#deps, stream, { ...options, signal }));
  }

  /**
   * Writes images as one archive, piece by piece, no faster than `write` takes them; see `exportImages`.
   *
   * @throws BerthError as `exportImages`, and what `write` throws
   */
  exportImages(
    refs: readonly string[],
    write: (piece: Uint8Array) => Promise<void>,
    caller: AbortSignal,
  ): Promise<void> {
    return this.#run(caller, async (signal) => {
      for await (const piece of exportImages(this.#deps, refs, signal)) await write(piece);
    });
  }

  /** All images, or those that an id or name means. @throws BerthError `invalid` */
  list(filter?: string): Image[] {
    return list(this.#deps.store, filter);
  }

  /** The image of an id or name. @throws BerthError `invalid` */
  get(refOrId: string): Image | undefined {
    return resolve(this.#deps.store, refOrId);
  }

  /** Directories for overlayfs' `lowerdir`: absolute, topmost first; empty for an image without layers. */
  lowerdirs(image: Image): string[] {
    return this.#deps.layers.lowerdirs(image.chainIds);
  }

  /**
   * A file that is made of an image's layers, once, and lives as long as they.
   *
   * @returns undefined for an image without layers
   * @throws as `LayerStore.made`
   */
  async made(
    image: Image,
    name: string,
    make: (target: string) => Promise<void>,
  ): Promise<string | undefined> {
    const top = image.chainIds.at(-1);
    return top === undefined ? undefined : this.#deps.layers.made(top, name, make);
  }

  /** Bytes and inodes, from the records. */
  fsInfo(): ImageFsUsage {
    return fsInfo(this.#options.db, this.#deps.layers.root);
  }

  /** What is under way and has been done since the start, for metrics. */
  activity(): ImageActivity {
    const { fetches, layers } = this.#deps;
    return {
      downloads: fetches.active,
      unpackings: layers.active,
      downloadedBytes: fetches.bytes,
      unpackedBytes: layers.unpackedBytes,
    };
  }

  /** What takes how much of the disk, from the records. */
  diskUsage(): Promise<DiskUsage> {
    const { db } = this.#options;
    return diskUsage({ ...this.#deps, db, used: this.#used, mountpoint: this.#deps.layers.root });
  }

  /**
   * Removes the image that an id or name means, with all its names, and what only it needed; see `remove`.
   *
   * @returns false when there is none, which is done, too
   */
  async remove(refOrId: string): Promise<boolean> {
    const removed = remove(this.#deps.store, refOrId, this.#used());
    if (removed) await this.collect();
    return removed;
  }

  /**
   * Removes what nothing needs; with `images` also those that no container uses, unless they are pinned.
   *
   * @returns the images that were removed, and the bytes that became free
   */
  async prune(options: { images: boolean }): Promise<{ images: Image[]; freedBytes: bigint }> {
    const { db } = this.#options;
    const before = fsInfo(db, this.#deps.layers.root).usedBytes;
    const images = options.images ? unusedImages(this.#deps.store, this.#used()) : [];
    for (const { id } of images) this.#deps.store.delete(id);
    await this.collect();
    return { images, freedBytes: before - fsInfo(db, this.#deps.layers.root).usedBytes };
  }

  /**
   * Removes blobs and layers that nothing refers to. Happens by itself once a minute, and at once after each
   * removal and each pull that failed for other reasons than an unavailable registry.
   */
  collect(): Promise<void> {
    return collect({ db: this.#options.db, used: this.#used, ...this.#deps });
  }

  /**
   * Removes what an earlier daemon left half done. Once, before any pull or import is begun; what is to be
   * removed is settled when this returns, and pulls may go on while it is being removed.
   */
  async sweep(): Promise<void> {
    const sweeping = Promise.all([this.#deps.content.sweep(), this.#deps.layers.sweep()]).then(() =>
      this.collect(),
    );
    await this.#inBackground(sweeping);
  }

  /** Ends pulls and imports under way and waits until they have put away what they began. Repeatable. */
  async close(): Promise<void> {
    clearInterval(this.#ticks);
    this.#closing.abort(new BerthError('cancelled', 'berthd is shutting down'));
    await Promise.allSettled(this.#running);
  }

  async #run<T>(signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const signals = signal === undefined ? [] : [signal];
    const running = work(AbortSignal.any([this.#closing.signal, ...signals]));
    this.#running.add(running);
    try {
      return await running;
    } catch (e: unknown) {
      // The kubelet tries again after 10 s: what is complete need not be fetched twice. All else that a failed
      // pull or import fetched is garbage at once, not only after the next removal.
      if (kindOf(e) === 'registryUnavailable') this.#ticks.refresh();
      else this.#collectLater();
      throw e;
    } finally {
      this.#running.delete(running);
    }
  }

  #collectLater(): void {
    void this.#inBackground(this.collect());
  }

  /** Waited for at the end; a failure is logged, and the next collection tries again. */
  async #inBackground(work: Promise<unknown>): Promise<void> {
    const running = work.catch((err: unknown) => {
      this.#options.logger.warn({ err }, 'removing unused blobs and layers failed');
    });
    this.#running.add(running);
    await running;
    this.#running.delete(running);
  }

  /** The image's config blob as JSON text, for verbose answers. */
  async rawConfig(image: Image): Promise<string> {
    return (await this.#deps.content.read(image.id, MAX_MANIFEST_BYTES)).toString('utf8');
  }
}
