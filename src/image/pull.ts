import { createHash } from 'node:crypto';
import { kindOf } from '../errors.ts';
import { orAborted } from '../util/abort.ts';
import { assemble, type ImageDeps, type Progress } from './assemble.ts';
import type { BlobSource } from './fetches.ts';
import { MAX_MANIFEST_BYTES, type Manifest, resolveManifest, type StoredDocument } from './manifest.ts';
import { formatReference, parseReference, type Reference, repository, taggedName } from './reference.ts';
import type { RegistryAuth } from './registry/auth.ts';
import { RegistryClient, type RegistryOptions } from './registry/client.ts';
import { KeyedSlots, nested, Semaphore, type Slots } from './semaphore.ts';
import type { SignaturePolicy } from './signature/policy.ts';
import type { Image } from './types.ts';

export interface PullOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

export interface PullDeps extends ImageDeps {
  registries: RegistryOptions;
  signatures: SignaturePolicy;
}

/**
 * Blobs that are fetched at once: of one pull (containerd's and Docker's default, too), from one registry,
 * and in all. Several pulls from one registry take turns, so that a small image does not wait for all of a
 * large one.
 */
const DOWNLOADS = { pull: 3, registry: 6, daemon: 12 };

/** A pull that runs, and who waits for it. */
interface Running {
  promise: Promise<Image>;
  abort: AbortController;
  waiters: number;
  listeners: Set<(progress: Progress) => void>;
}

/**
 * Pulls under way. The same image wanted twice at once with the same credentials is one pull, which ends when
 * the last who wanted it has gone. Other credentials are another pull: one caller's must not open a private
 * image to the next.
 */
export class Pulls {
  readonly #deps: PullDeps;
  readonly #running = new Map<string, Running>();
  readonly #ofRegistry = new KeyedSlots(DOWNLOADS.registry);
  readonly #ofDaemon = new Semaphore(DOWNLOADS.daemon);

  constructor(deps: PullDeps) {
    this.#deps = deps;
  }

  /**
   * Pulls an image by tag or digest, and records it under that tag and `repository@digest`.
   *
   * @throws BerthError `invalid` for a name or content that is wrong, `notFound`, `permission`,
   * `registryUnavailable`, `signatureInvalid`, `exhausted`, `cancelled`
   */
  async pull(
    text: string,
    auth: RegistryAuth | undefined,
    options: PullOptions & { signal: AbortSignal },
  ): Promise<Image> {
    const reference = parseReference(text);
    const key = createHash('sha256')
      .update(JSON.stringify([formatReference(reference), auth ?? {}]))
      .digest('hex');
    options.signal.throwIfAborted();
    const running = this.#running.get(key) ?? this.#start(key, reference, auth);
    running.waiters += 1;
    if (options.onProgress !== undefined) running.listeners.add(options.onProgress);
    try {
      return await orAborted(running.promise, options.signal);
    } finally {
      if (options.onProgress !== undefined) running.listeners.delete(options.onProgress);
      running.waiters -= 1;
      if (running.waiters === 0) {
        running.abort.abort(new DOMException('nobody waits for this pull any more', 'AbortError'));
        if (this.#running.get(key) === running) this.#running.delete(key);
        // It must have put away what it began before the caller goes on.
        await running.promise.catch(() => {});
      }
    }
  }

  #start(key: string, reference: Reference, auth: RegistryAuth | undefined): Running {
    const abort = new AbortController();
    const listeners = new Set<(progress: Progress) => void>();
    const onProgress = (progress: Progress): void => {
      for (const listener of listeners) listener(progress);
    };
    const slots = nested(new Semaphore(DOWNLOADS.pull), this.#ofRegistry.of(reference.host), this.#ofDaemon);
    const promise = pullOnce(this.#deps, { reference, auth, slots, signal: abort.signal, onProgress });
    const running = { promise, abort, waiters: 0, listeners };
    this.#running.set(key, running);
    return running;
  }
}

interface PullJob {
  reference: Reference;
  auth: RegistryAuth | undefined;
  slots: Slots;
  signal: AbortSignal;
  onProgress: (progress: Progress) => void;
}

async function pullOnce(deps: PullDeps, job: PullJob): Promise<Image> {
  const { reference, auth, signal, onProgress } = job;
  const client = await RegistryClient.open(deps.registries, reference, auth);
  try {
    using leases = new DisposableStack();
    const documents: string[] = [];
    const source: BlobSource = {
      fetch: (descriptor, blobSignal) => client.blob(descriptor, blobSignal),
      slots: job.slots,
      isOwner: true,
    };
    const get = new Documents(deps, client, leases, documents, signal);
    const top = await get.byReference(reference);
    await deps.signatures.check({ reference, digest: top.digest, client, signal });
    const name = formatReference(reference);
    const manifest = await get.manifest(top, name);
    await deps.faults.at('PullImage.manifest');
    const tag = taggedName(reference);
    return await assemble(deps, {
      what: name,
      manifest,
      documents,
      names: [...(tag === undefined ? [] : [tag]), `${repository(reference)}@${top.digest}`],
      source,
      signal,
      onProgress,
    });
  } finally {
    client.close();
  }
}

/** Fetches and stores the manifests and indexes of one pull. */
class Documents {
  readonly #deps: PullDeps;
  readonly #client: RegistryClient;
  readonly #leases: DisposableStack;
  readonly #digests: string[];
  readonly #signal: AbortSignal;

  constructor(
    deps: PullDeps,
    client: RegistryClient,
    leases: DisposableStack,
    digests: string[],
    signal: AbortSignal,
  ) {
    this.#deps = deps;
    this.#client = client;
    this.#leases = leases;
    this.#digests = digests;
    this.#signal = signal;
  }

  /**
   * The document that a name means; by its digest when there is one, whatever its tag. The registry is asked in
   * any case: the kubelet takes a successful pull as proof that these credentials may have the image.
   */
  async byReference({ tag, digest }: Reference): Promise<StoredDocument> {
    const asked = digest ?? tag ?? 'latest';
    const resolved = await this.#resolve(asked);
    return this.#fetch(digest ?? resolved ?? asked, '');
  }

  /** The manifest for this platform, through indexes. */
  manifest(document: StoredDocument, what: string): Promise<Manifest> {
    return resolveManifest(document, this.#deps.platform, what, ({ digest, mediaType }) =>
      this.#fetch(digest, mediaType),
    );
  }

  async #resolve(tagOrDigest: string): Promise<string | undefined> {
    try {
      return await this.#client.resolve(tagOrDigest, this.#signal);
    } catch (e: unknown) {
      // HEAD is not everywhere allowed; GET always is.
      if (kindOf(e) === 'unimplemented') return undefined;
      throw e;
    }
  }

  /** A stored document is not fetched again: its digest says that it is the same. */
  async #fetch(tagOrDigest: string, mediaType: string): Promise<StoredDocument> {
    const { content, leases } = this.#deps;
    this.#leases.use(leases.hold(tagOrDigest));
    const fetched =
      content.size(tagOrDigest) === undefined
        ? await this.#client.manifest(tagOrDigest, this.#signal)
        : undefined;
    const document = fetched ?? {
      digest: tagOrDigest,
      bytes: await content.read(tagOrDigest, MAX_MANIFEST_BYTES),
      mediaType,
    };
    this.#leases.use(leases.hold(document.digest));
    if (fetched !== undefined) await this.#store(document);
    this.#digests.push(document.digest);
    return document;
  }

  async #store({ digest, bytes }: StoredDocument): Promise<void> {
    const source: BlobSource = {
      fetch: async function* () {
        yield bytes;
      },
      slots: new Semaphore(1),
    };
    await this.#deps.fetches.get(source, { mediaType: '', digest, size: bytes.length }, this.#signal);
  }
}
