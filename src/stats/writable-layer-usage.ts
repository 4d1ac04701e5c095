import { lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerRecord } from '../container/record.ts';
import { isErrno, messageOf } from '../errors.ts';
import { Semaphore } from '../image/semaphore.ts';
import type { Logger } from '../log.ts';
import type { Paths } from '../paths.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { SingleFlight } from '../util/single-flight.ts';

/** What a writable layer takes. */
export interface LayerUsage {
  /** Allocated bytes. */
  usedBytes: bigint;
  inodesUsed: bigint;
  /** Nanoseconds since the epoch, at the end of the walk. */
  timestampNs: bigint;
}

/** Where a writable layer is. */
export interface WritableLayer {
  path: string;
  /** What it takes without being the container's. */
  baseBytes: bigint;
}

/** The writable layer of a container. */
export function writableLayer(
  paths: Paths,
  { id, disk }: Pick<ContainerRecord, 'id' | 'disk'>,
): WritableLayer {
  const { upper, disk: path } = paths.container(id);
  return disk === undefined ? { path: upper, baseBytes: 0n } : { path, baseBytes: disk.baseBytes };
}

/** A walk is not repeated before this, milliseconds: the kubelet asks every ten seconds. */
const MAX_AGE_MS = 30_000;
/** Nor before so many times as long as it took: walking one layer takes at most 1/20 of the time. */
const REST = 20;
/** Walks at once, of all containers. */
const WALKS = 2;
/** How long a first answer may take, milliseconds; after that the size is unknown until the walk ends. */
const PATIENCE_MS = 1_000;

/** Sizes of writable layers, by walks in the background whose results are kept. */
export class WritableLayerUsage {
  readonly #known = new Map<string, { usage: LayerUsage; until: number }>();
  readonly #walks = new SingleFlight<LayerUsage | undefined>();
  readonly #slots = new Semaphore(WALKS);
  readonly #closing = new AbortController();
  readonly #log: Pick<Logger, 'warn'>;

  constructor(log: Pick<Logger, 'warn'>) {
    this.#log = log;
  }

  /**
   * The last known size, and when that was; undefined when the first walk takes long.
   *
   * @param layer a directory, or a file that had so many bytes before anything was written
   */
  async of(id: string, layer: WritableLayer): Promise<LayerUsage | undefined> {
    const known = this.#known.get(id);
    if (known !== undefined && performance.now() < known.until) return known.usage;
    const walk = this.#walks.run(id, () => this.#walk(id, layer));
    if (known !== undefined) return known.usage;
    const patience = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => patience.resolve(undefined), PATIENCE_MS);
    return Promise.race([walk, patience.promise]).finally(() => clearTimeout(timer));
  }

  /** Forgets all other containers. */
  retain(ids: ReadonlySet<string>): void {
    for (const id of this.#known.keys()) if (!ids.has(id)) this.#known.delete(id);
  }

  /** Ends walks; those under way stop at the next file. Repeatable. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#walks.settled();
  }

  async #walk(id: string, { path, baseBytes }: WritableLayer): Promise<LayerUsage | undefined> {
    const { signal } = this.#closing;
    try {
      return await this.#slots.run(signal, async () => {
        const began = performance.now();
        const { usedBytes, ...rest } = await measure(path, signal);
        const usage = { usedBytes: usedBytes > baseBytes ? usedBytes - baseBytes : 0n, ...rest };
        const now = performance.now();
        this.#known.set(id, { usage, until: now + Math.max(MAX_AGE_MS, REST * (now - began)) });
        return usage;
      });
    } catch (e: unknown) {
      if (!signal.aborted) {
        const reason = messageOf(e);
        this.#log.warn({ container: id, reason }, 'the writable layer could not be measured');
      }
      return undefined;
    }
  }
}

async function measure(dir: string, signal: AbortSignal): Promise<LayerUsage> {
  // A file with several names counts once.
  const seen = new Set<bigint>();
  let [blocks, inodes] = [0n, 0n];
  const visit = async (path: string): Promise<void> => {
    signal.throwIfAborted();
    try {
      const stats = await lstat(path, { bigint: true });
      if (stats.nlink > 1n && !stats.isDirectory()) {
        if (seen.has(stats.ino)) return;
        seen.add(stats.ino);
      }
      blocks += stats.blocks;
      inodes++;
    } catch (e: unknown) {
      if (!isErrno(e, 'ENOENT')) throw e;
    }
  };
  const walk = async (path: string): Promise<void> => {
    await visit(path);
    try {
      for await (const entry of await opendir(path)) {
        const child = join(path, entry.name);
        if (entry.isDirectory()) await walk(child);
        else await visit(child);
      }
    } catch (e: unknown) {
      // The container works on while it is measured.
      if (!isErrno(e, 'ENOENT', 'ENOTDIR')) throw e;
    }
  };
  await walk(dir);
  return { usedBytes: blocks * 512n, inodesUsed: inodes, timestampNs: nowNs() };
}
