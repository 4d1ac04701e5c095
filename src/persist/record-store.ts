import { notFound } from '../errors.ts';
import type { Database } from './database.ts';
import { decodeRecord, encodeRecord } from './json.ts';

/** A record's columns beside `id` and `record`, computed from it: what the schema indexes or references. */
export type ExtraColumns<T> = Readonly<Record<string, (record: T) => string>>;

/** Told of a change: `before` is undefined for a new record, `after` for one that is gone. */
export type RecordListener<T> = (before: T | undefined, after: T | undefined) => void;

/**
 * One kind of record: all of them in memory for answers, each in its table for the next start.
 *
 * Records are immutable; a change replaces the whole record, on disk first and then in memory, so that
 * nobody is ever told of something that a crash would take back.
 */
export class RecordStore<T extends { readonly id: string }> {
  readonly #db: Database;
  readonly #noun: string;
  readonly #upsert: string;
  readonly #deleteSql: string;
  readonly #extra: [string, (record: T) => string][];
  readonly #records = new Map<string, T>();
  readonly #listeners: RecordListener<T>[] = [];

  /** `table` and the keys of `extra` are names from the schema, never input. */
  constructor(db: Database, table: string, noun: string, extra: ExtraColumns<T> = {}) {
    this.#db = db;
    this.#noun = noun;
    this.#extra = Object.entries(extra);
    const columns = ['id', ...Object.keys(extra), 'record'];
    this.#upsert = `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})
      ON CONFLICT (id) DO UPDATE SET record = excluded.record`;
    this.#deleteSql = `DELETE FROM ${table} WHERE id = ?`;
    for (const row of db.all<{ id: string; record: string }>(`SELECT id, record FROM ${table}`)) {
      this.#records.set(row.id, decodeRecord<T>(row.record, `${table} ${row.id}`));
    }
  }

  get(id: string): T | undefined {
    return this.#records.get(id);
  }

  /** @throws BerthError `notFound`. */
  require(id: string): T {
    const record = this.#records.get(id);
    if (record === undefined) throw notFound(`${this.#noun} "${id}"`);
    return record;
  }

  values(): IterableIterator<T> {
    return this.#records.values();
  }

  /** Calls `listener` at every change, in order, once it is on disk and in memory. It must not throw. */
  onChange(listener: RecordListener<T>): void {
    this.#listeners.push(listener);
  }

  put(record: T): void {
    const before = this.#records.get(record.id);
    this.#db.run(this.#upsert, record.id, ...this.#extra.map(([, of]) => of(record)), encodeRecord(record));
    this.#records.set(record.id, record);
    for (const listener of this.#listeners) listener(before, record);
  }

  /** Replaces members of a record; returns the new one. @throws BerthError `notFound`. */
  update(id: string, change: Partial<T>): T {
    const record = { ...this.require(id), ...change };
    this.put(record);
    return record;
  }

  /** Absent is done. */
  delete(id: string): void {
    const before = this.#records.get(id);
    this.#db.run(this.#deleteSql, id);
    this.#records.delete(id);
    if (before !== undefined) for (const listener of this.#listeners) listener(before, undefined);
  }
}
