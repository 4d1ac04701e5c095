import { statfs } from 'node:fs/promises';
import type { Database } from '../persist/database.ts';
import { ALLOCATED } from './fs-info.ts';
import type { Leases } from './leases.ts';
import type { ImageStore } from './store.ts';
import type { Image } from './types.ts';

/** Sizes are allocated bytes unless they say otherwise. */
export interface LayerUsage {
  chainId: string;
  bytes: bigint;
  inodes: bigint;
}

export interface ImageUsage {
  image: Image;
  /** Unpacked layers and stored blobs, also those that it shares. */
  bytes: bigint;
  /** What its removal would free. */
  uniqueBytes: bigint;
  isUsed: boolean;
}

/** What images take of the disk. */
export interface DiskUsage {
  images: ImageUsage[];
  /** All that are unpacked, by chain ID. */
  layers: Map<string, LayerUsage>;
  blobBytes: bigint;
  blobs: bigint;
  /** Of images that were removed while containers use them. */
  removedBytes: bigint;
  /** Blobs and layers that nothing needs, which the next collection removes. */
  garbageBytes: bigint;
  /** Of the file system that holds them: all, and what is free for root. */
  totalBytes: bigint;
  freeBytes: bigint;
}

interface Deps {
  db: Database;
  store: ImageStore;
  leases: Leases;
  used: () => ReadonlySet<string>;
  /** A directory of the file system. */
  mountpoint: string;
}

/** Something that takes room, and the images that need it. */
interface Item {
  key: string;
  bytes: bigint;
  owners: Set<string>;
}

/** From the records, save the file system's own numbers. */
export async function diskUsage({ db, store, leases, used, mountpoint }: Deps): Promise<DiskUsage> {
  const blobs = items(
    db,
    `SELECT b.digest AS key, ${ALLOCATED} AS bytes, i.image_id AS owner FROM blobs b LEFT JOIN image_blobs i ON i.digest = b.digest`,
  );
  const layers = items(
    db,
    'SELECT l.chain_id AS key, l.size AS bytes, i.image_id AS owner FROM layers l LEFT JOIN image_layers i ON i.chain_id = l.chain_id',
  );
  const all = [...blobs.values(), ...layers.values()];
  const hidden = new Set(store.hidden());
  const inUse = used();
  const sum = (filter: (item: Item) => boolean): bigint =>
    all.filter(filter).reduce((total, { bytes }) => total + bytes, 0n);
  const { bsize, blocks, bfree } = await statfs(mountpoint, { bigint: true });
  return {
    images: store.list().map((image) => ({
      image,
      bytes: sum(({ owners }) => owners.has(image.id)),
      uniqueBytes: sum(({ owners }) => owners.size === 1 && owners.has(image.id)),
      isUsed: inUse.has(image.id),
    })),
    layers: layerUsage(db),
    blobBytes: Array.from(blobs.values()).reduce((total, { bytes }) => total + bytes, 0n),
    blobs: BigInt(blobs.size),
    removedBytes: sum(({ owners }) => owners.size > 0 && [...owners].every((id) => hidden.has(id))),
    garbageBytes: sum(({ key, owners }) => owners.size === 0 && !leases.has(key)),
    totalBytes: blocks * bsize,
    freeBytes: bfree * bsize,
  };
}

function layerUsage(db: Database): Map<string, LayerUsage> {
  const rows = db.all<{ chain_id: string; size: bigint; inodes: bigint }>(
    'SELECT chain_id, size, inodes FROM layers',
  );
  return new Map(
    rows.map(({ chain_id, size, inodes }) => [chain_id, { chainId: chain_id, bytes: size, inodes }]),
  );
}

function items(db: Database, sql: string): Map<string, Item> {
  const found = new Map<string, Item>();
  for (const { key, bytes, owner } of db.all<{ key: string; bytes: bigint; owner: string | null }>(sql)) {
    const item = found.get(key) ?? { key, bytes, owners: new Set() };
    if (owner !== null) item.owners.add(owner);
    found.set(key, item);
  }
  return found;
}
