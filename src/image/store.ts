import type { Database } from '../persist/database.ts';
import { decodeRecord, encodeRecord } from '../persist/json.ts';
import type { Image, ImageConfig } from './types.ts';

/** What is stored of an image beside its names and references. */
interface ImageRecord {
  size: bigint;
  config: ImageConfig;
  chainIds: string[];
  /** Removed for everyone but the containers that use it, which keep its content. */
  isHidden?: true;
}

/** An image that has all its blobs and layers. */
export interface NewImage extends Omit<ImageRecord, 'isHidden'> {
  id: string;
  /** Digests of all its blobs, the config among them. */
  blobs: readonly string[];
  /** Names to be given; a name that another image has moves here. */
  names: readonly string[];
}

/**
 * Records of images and their names: in memory for answers, in the database for the next start. Whatever
 * changes both does so in one turn of the event loop.
 */
export class ImageStore {
  readonly #db: Database;
  readonly #isPinned: (name: string) => boolean;
  readonly #records = new Map<string, ImageRecord>();
  /** Name → image id. */
  readonly #names = new Map<string, string>();
  /** Finished answers, dropped when an image changes. */
  readonly #images = new Map<string, Image>();

  constructor(db: Database, isPinned: (name: string) => boolean) {
    this.#db = db;
    this.#isPinned = isPinned;
    for (const row of db.all<{ id: string; record: string }>('SELECT id, record FROM images')) {
      this.#records.set(row.id, decodeRecord<ImageRecord>(row.record, `images ${row.id}`));
    }
    for (const row of db.all<{ name: string; image_id: string }>('SELECT name, image_id FROM image_names')) {
      this.#names.set(row.name, row.image_id);
    }
  }

  get(id: string): Image | undefined {
    const known = this.#images.get(id);
    if (known !== undefined) return known;
    const record = this.#records.get(id);
    if (record === undefined || record.isHidden === true) return undefined;
    const names = this.#namesOf(id).sort();
    const image: Image = {
      id,
      repoTags: names.filter((name) => !name.includes('@')),
      repoDigests: names.filter((name) => name.includes('@')),
      size: record.size,
      config: record.config,
      chainIds: record.chainIds,
      pinned: names.some(this.#isPinned),
    };
    this.#images.set(id, image);
    return image;
  }

  /** The id of the image with this normalised name. */
  idOf(name: string): string | undefined {
    return this.#names.get(name);
  }

  /** Digests of all blobs of an image, in order. */
  blobs(id: string): string[] {
    return this.#db
      .all<{ digest: string }>('SELECT digest FROM image_blobs WHERE image_id = ? ORDER BY digest', id)
      .map(({ digest }) => digest);
  }

  /** All images, in order of id. */
  list(): Image[] {
    return Array.from(this.#records.keys())
      .sort()
      .flatMap((id) => this.get(id) ?? []);
  }

  /** Stores an image, or adds names and blobs to the one of the same id. */
  put(image: NewImage): Image {
    const { id, names, blobs, ...record } = image;
    const sortedNames = [...new Set(names)];
    const losers = sortedNames.flatMap((name) => this.#names.get(name) ?? []);
    this.#db.transaction(() => {
      this.#db.run(
        'INSERT INTO images (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record',
        id,
        encodeRecord(record),
      );
      for (const digest of blobs) {
        this.#db.run('INSERT OR IGNORE INTO image_blobs (image_id, digest) VALUES (?, ?)', id, digest);
      }
      for (const [position, chainId] of record.chainIds.entries()) {
        this.#db.run(
          'INSERT OR IGNORE INTO image_layers (image_id, position, chain_id) VALUES (?, ?, ?)',
          id,
          BigInt(position),
          chainId,
        );
      }
      for (const name of sortedNames) {
        this.#db.run(
          'INSERT INTO image_names (name, image_id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id',
          name,
          id,
        );
      }
    });
    this.#records.set(id, record);
    for (const name of sortedNames) this.#names.set(name, id);
    for (const changed of [id, ...losers]) this.#images.delete(changed);
    // Just stored.
    return this.get(id) as Image;
  }

  /** Removes an image with all its names and references; blobs and layers are left to collection. */
  delete(id: string): void {
    this.#db.transaction(() => {
      for (const table of ['image_names', 'image_blobs', 'image_layers']) {
        this.#db.run(`DELETE FROM ${table} WHERE image_id = ?`, id);
      }
      this.#db.run('DELETE FROM images WHERE id = ?', id);
    });
    for (const name of this.#namesOf(id)) this.#names.delete(name);
    this.#records.delete(id);
    this.#images.delete(id);
  }

  /** Takes an image's names and lists it no more; its content stays until it is deleted. */
  hide(id: string): void {
    const record = this.#records.get(id);
    if (record === undefined) return;
    const hidden: ImageRecord = { ...record, isHidden: true };
    this.#db.transaction(() => {
      this.#db.run('DELETE FROM image_names WHERE image_id = ?', id);
      this.#db.run('UPDATE images SET record = ? WHERE id = ?', encodeRecord(hidden), id);
    });
    for (const name of this.#namesOf(id)) this.#names.delete(name);
    this.#records.set(id, hidden);
    this.#images.delete(id);
  }

  /** Ids of the images that are hidden. */
  hidden(): string[] {
    return Array.from(this.#records).flatMap(([id, { isHidden }]) => (isHidden === true ? [id] : []));
  }

  #namesOf(id: string): string[] {
    return Array.from(this.#names).flatMap(([name, owner]) => (owner === id ? [name] : []));
  }
}
