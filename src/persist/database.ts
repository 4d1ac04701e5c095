import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { BerthError } from '../errors.ts';
import { migrations } from './schema.ts';

/** A value that a column holds; integers come back as bigint so that sizes and times are never lossy. */
export type Column = string | bigint | null | Uint8Array;

/**
 * The one embedded database: images, layers, sandboxes, containers and the clean-up list.
 *
 * Write-ahead logging with `synchronous = NORMAL` writes no disk barrier at a commit: a killed daemon
 * loses nothing, and after a power cut (which ends every container anyway) the file is whole but may
 * lack the last moments; whatever they made is then swept as having no record.
 */
export class Database {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  /** @throws BerthError `internal` when the file was written by a newer berth or is not a database. */
  constructor(path: string) {
    this.#db = new DatabaseSync(path, { timeout: 5000 });
    this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON');
    this.#migrate(path);
  }

  /** Rows of a query, each a column-name → value object. */
  all<T extends Record<string, Column>>(sql: string, ...values: Column[]): T[] {
    return this.#statement(sql).all(...values) as T[];
  }

  /** The first row of a query, or undefined. */
  get<T extends Record<string, Column>>(sql: string, ...values: Column[]): T | undefined {
    return this.#statement(sql).get(...values) as T | undefined;
  }

  /** Runs a statement that changes rows; returns how many changed. */
  run(sql: string, ...values: Column[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /** All of `fn`'s statements or none; `fn` is synchronous, so no other request comes between. */
  transaction<T>(fn: () => T): T {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      const result = fn();
      this.#db.exec('COMMIT');
      return result;
    } catch (e: unknown) {
      this.#db.exec('ROLLBACK');
      throw e;
    }
  }

  close(): void {
    if (this.#db.isOpen) this.#db.close();
  }

  #statement(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#db.prepare(sql);
    statement.setReadBigInts(true);
    this.#statements.set(sql, statement);
    return statement;
  }

  #migrate(path: string): void {
    const version = Number(this.get<{ user_version: bigint }>('PRAGMA user_version')?.user_version ?? 0n);
    if (version > migrations.length) {
      throw new BerthError(
        'internal',
        `${path}: schema version ${version} is newer than this berth's (${migrations.length}); install the newer berth again or move the file away`,
      );
    }
    for (const [index, sql] of migrations.entries()) {
      if (index < version) continue;
      this.transaction(() => {
        this.#db.exec(sql);
        this.#db.exec(`PRAGMA user_version = ${index + 1}`);
      });
    }
  }
}
