import { closeSync, fchmodSync, openSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { BerthError, messageOf } from '../errors.ts';
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
  readonly #path: string;
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * Opens the file, or makes it; its directory must be there.
   *
   * @throws BerthError `internal` when the file was written by a newer berth, is damaged or no database
   */
  constructor(path: string) {
    this.#path = path;
    this.#db = this.#named(() => openPrivate(path));
    try {
      this.#exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON');
      this.#migrate();
    } catch (e: unknown) {
      this.#db.close();
      throw e;
    }
  }

  /** Rows of a query, each a column-name → value object. */
  all<T extends Record<string, Column>>(sql: string, ...values: Column[]): T[] {
    return this.#named(() => this.#statement(sql).all(...values)) as T[];
  }

  /** The first row of a query, or undefined. */
  get<T extends Record<string, Column>>(sql: string, ...values: Column[]): T | undefined {
    return this.#named(() => this.#statement(sql).get(...values)) as T | undefined;
  }

  /** Runs a statement that changes rows; returns how many changed. */
  run(sql: string, ...values: Column[]): number {
    return this.#named(() => Number(this.#statement(sql).run(...values).changes));
  }

  /** All of `fn`'s statements or none; `fn` is synchronous, so no other request comes between. */
  transaction<T>(fn: () => T): T {
    this.#exec('BEGIN IMMEDIATE');
    try {
      const result = fn();
      this.#exec('COMMIT');
      return result;
    } catch (e: unknown) {
      // SQLite has rolled back by itself after some errors, such as a full disk.
      if (this.#db.isTransaction) this.#exec('ROLLBACK');
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

  #migrate(): void {
    const version = Number(this.get<{ user_version: bigint }>('PRAGMA user_version')?.user_version ?? 0n);
    if (version > migrations.length) {
      throw new BerthError(
        'internal',
        `database ${this.#path}: schema version ${version} is newer than this berth's (${migrations.length}); install the newer berth again or move the file away`,
      );
    }
    for (const [index, sql] of migrations.entries()) {
      if (index < version) continue;
      this.transaction(() => {
        this.#exec(sql);
        this.#exec(`PRAGMA user_version = ${index + 1}`);
      });
    }
  }

  #exec(sql: string): void {
    this.#named(() => this.#db.exec(sql));
  }

  /** SQLite's messages (`file is not a database`) name no file. */
  #named<T>(fn: () => T): T {
    try {
      return fn();
    } catch (e: unknown) {
      // The low byte of an extended code is the code itself.
      const code = e instanceof Error && 'errcode' in e ? Number(e.errcode) & 0xff : undefined;
      const advice = DAMAGED.has(code) ? '; put back a copy, or move it away and begin without records' : '';
      const kind = code === SQLITE_FULL ? 'exhausted' : 'internal';
      throw new BerthError(kind, `database ${this.#path}: ${messageOf(e)}${advice}`, { cause: e });
    }
  }
}

/** Records hold the environment of containers, and with it passwords. SQLite gives its other files the same mode. */
function openPrivate(path: string): DatabaseSync {
  const fd = openSync(path, 'a', 0o600);
  fchmodSync(fd, 0o600);
  closeSync(fd);
  return new DatabaseSync(path, { timeout: 5000 });
}

/** SQLITE_CORRUPT and SQLITE_NOTADB (sqlite.org/rescode.html). */
const DAMAGED: ReadonlySet<number | undefined> = new Set([11, 26]);
/** No room for the file to grow. */
const SQLITE_FULL = 13;
