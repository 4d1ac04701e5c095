import type { Database } from '../persist/database.ts';

/** The use of the file system by images, for ImageFsInfo. */
export interface ImageFsUsage {
  /** A directory on the file system that holds the layers, absolute. */
  mountpoint: string;
  /** Nanoseconds since 1970. */
  timestamp: bigint;
  /** Allocated bytes of unpacked layers and stored blobs. */
  usedBytes: bigint;
  inodesUsed: bigint;
}

/** Bytes that a blob's file takes: whole blocks, of 4096 bytes on the file systems in use. */
export const ALLOCATED = '(size + 4095) / 4096 * 4096';

/** From the records: exact for what is stored, and cheap, as the kubelet asks every ten seconds. */
export function fsInfo(db: Database, mountpoint: string): ImageFsUsage {
  const layers = db.get<{ size: bigint; inodes: bigint }>(
    'SELECT ifnull(sum(size), 0) AS size, ifnull(sum(inodes), 0) AS inodes FROM layers',
  );
  const blobs = db.get<{ size: bigint; count: bigint }>(
    `SELECT ifnull(sum(${ALLOCATED}), 0) AS size, count(*) AS count FROM blobs`,
  );
  return {
    mountpoint,
    timestamp: BigInt(Date.now()) * 1_000_000n,
    usedBytes: (layers?.size ?? 0n) + (blobs?.size ?? 0n),
    inodesUsed: (layers?.inodes ?? 0n) + (blobs?.count ?? 0n),
  };
}
