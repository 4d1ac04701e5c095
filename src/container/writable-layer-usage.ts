import { lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../errors.ts';
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

/** A walk is not repeated before this, milliseconds: the kubelet asks every ten seconds. */
const MAX_AGE_MS = 30_000;

/** Sizes of writable layers, by walks that are cached and never overlap for one container. */
export class WritableLayerUsage {
  readonly #known = new Map<string, { usage: LayerUsage; at: number }>();
  readonly #walks = new SingleFlight<LayerUsage>();

  async of(id: string, upperdir: string): Promise<LayerUsage> {
    const known = this.#known.get(id);
    if (known !== undefined && performance.now() - known.at < MAX_AGE_MS) return known.usage;
    return this.#walks.run(id, async () => {
      const usage = await measure(upperdir);
      this.#known.set(id, { usage, at: performance.now() });
      return usage;
    });
  }

  forget(id: string): void {
    this.#known.delete(id);
  }
}

async function measure(dir: string): Promise<LayerUsage> {
  // A file with several names counts once.
  const seen = new Set<bigint>();
  let blocks = 0n;
  const visit = async (path: string): Promise<void> => {
    try {
      const { ino, blocks: own } = await lstat(path, { bigint: true });
      if (seen.has(ino)) return;
      seen.add(ino);
      blocks += own;
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
  return { usedBytes: blocks * 512n, inodesUsed: BigInt(seen.size), timestampNs: nowNs() };
}
