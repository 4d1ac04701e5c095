import { mkdtemp, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Database } from '../../../src/persist/database.ts';
import { decodeRecord, encodeRecord } from '../../../src/persist/json.ts';
import { RecordStore } from '../../../src/persist/record-store.ts';
import { migrations } from '../../../src/persist/schema.ts';

let dir: string;
let file: string;
const open: { close(): void }[] = [];

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-persist-'));
  file = path.join(dir, 'berth.db');
});
afterEach(async () => {
  for (const db of open.splice(0)) db.close();
  await rm(dir, { recursive: true });
});

function database(): Database {
  const db = new Database(file);
  open.push(db);
  return db;
}

/** Another connection, for damage that berth would not do. */
function raw(sql: string): void {
  const db = new DatabaseSync(file);
  try {
    db.exec(sql);
  } finally {
    db.close();
  }
}

describe('records as JSON', () => {
  it.each<[string, unknown]>([
    ['extremes of int64 and uint64', { a: [-(2n ** 63n), 2n ** 63n - 1n, 2n ** 64n - 1n, 2n ** 53n + 1n] }],
    ['numbers and booleans beside them', { n: 1, s: '1', b: 1n, t: true, z: null, e: [], o: {} }],
    ['a label that spells our bigint', { labels: { $bigint: '5' } }],
    ['a label that spells it wrongly', { labels: { $bigint: 'abc', b: 'c' } }],
    ['a label that spells our escape', { labels: { $object: 'x' }, deep: { $object: [['a', 'b']] } }],
    ['an escape in an escape', { $a: { $object: [{ $bigint: '1' }] }, $bigint: 7n }],
    ['a label called __proto__', JSON.parse('{"labels":{"__proto__":"x","$y":"z"}}')],
    ['what is escaped below __proto__', JSON.parse('{"result":{"__proto__":{"$y":"z"}}}')],
    ['text that no one chose well', { a: '\u0000\ud800"\\', '': ' ' }],
  ])('keep %s', (_name, value) => {
    expect(decodeRecord(encodeRecord(value), 'x')).toStrictEqual(value);
  });

  it('lose members that are undefined', () => {
    expect(decodeRecord(encodeRecord({ a: undefined, b: 1 }), 'x')).toStrictEqual({ b: 1 });
  });

  it.each(['', '{', '{"a":{"$bigint":"x"}}'])('that are none (%s) are named', (text) => {
    expect(() => decodeRecord(text, 'containers c1')).toThrow(
      expect.objectContaining({
        kind: 'internal',
        message: expect.stringMatching(/^record containers c1 in the database: /),
      }),
    );
  });
});

describe('Database', () => {
  it('keeps rows over reopening, integers without loss', () => {
    const size = 2n ** 63n - 1n;
    expect(database().run('INSERT INTO blobs VALUES (?, ?)', 'sha256:a', size)).toBe(1);
    open.pop()?.close();
    expect(database().all('SELECT * FROM blobs')).toEqual([{ digest: 'sha256:a', size }]);
    expect(database().get('SELECT * FROM blobs WHERE digest = ?', 'sha256:b')).toBeUndefined();
  });

  it('does all of a transaction or nothing', () => {
    const db = database();
    const blob = (digest: string) => db.run('INSERT INTO blobs VALUES (?, ?)', digest, 1n);
    expect(
      db.transaction(() => {
        blob('a');
        return 7;
      }),
    ).toBe(7);
    expect(() =>
      db.transaction(() => {
        blob('b');
        throw new TypeError('mine');
      }),
    ).toThrow(new TypeError('mine'));
    expect(db.all('SELECT digest FROM blobs')).toEqual([{ digest: 'a' }]);
    // And the database is not left inside the transaction.
    db.transaction(() => blob('c'));
  });

  it('keeps references whole', () => {
    const db = database();
    const insert = 'INSERT INTO containers (id, sandbox_id, record) VALUES (?, ?, ?)';
    expect(() => db.run(insert, 'c1', 'sb1', '{}')).toThrow(/FOREIGN KEY/);
    expect(db.all('SELECT * FROM containers')).toEqual([]);
  });

  it('is written ahead, so that a reader never waits', () => {
    expect(database().get('PRAGMA journal_mode')).toEqual({ journal_mode: 'wal' });
  });

  it('closes repeatedly and leaves one whole file', async () => {
    const db = database();
    db.run('INSERT INTO blobs VALUES (?, ?)', 'a', 1n);
    db.close();
    db.close();
    expect(await readdir(dir)).toEqual(['berth.db']);
  });

  it('has the version of its schema', () => {
    expect(database().get('PRAGMA user_version')).toEqual({ user_version: BigInt(migrations.length) });
  });

  it('refuses the file of a newer berth and leaves it as it is', () => {
    raw(`PRAGMA user_version = ${migrations.length + 1}`);
    expect(() => new Database(file)).toThrow(
      expect.objectContaining({
        kind: 'internal',
        message: expect.stringMatching(
          new RegExp(`^database ${file}: schema version \\d+ is newer .*; install`),
        ),
      }),
    );
    raw('CREATE TABLE not_locked (x)');
  });

  it.each([
    ['no database', 'these bytes are a text and no database, however long one reads on in it. '.repeat(100)],
    ['cut off', undefined],
  ])('names a file that is %s, and what to do', async (_name, content) => {
    if (content === undefined) {
      database().close();
      // The header stays, the pages go.
      raw('PRAGMA journal_mode = DELETE');
      await truncate(file, 4096);
    } else await writeFile(file, content);
    expect(() => {
      const db = new Database(file);
      open.push(db);
      new RecordStore(db, 'sandboxes', 'sandbox');
    }).toThrow(
      expect.objectContaining({
        kind: 'internal',
        message: expect.stringMatching(
          new RegExp(`^database ${file}: .+; put back a copy, or move it away and begin without records$`),
        ),
      }),
    );
  });

  it('names a file that cannot be made', () => {
    const missing = path.join(dir, 'no/berth.db');
    expect(() => new Database(missing)).toThrow(`database ${missing}: ENOENT`);
  });

  it('is for its owner alone, with all its files', async () => {
    await writeFile(file, '', { mode: 0o644 });
    database().run('INSERT INTO blobs VALUES (?, ?)', 'a', 1n);
    const modes = (await readdir(dir)).map(async (name) => (await stat(path.join(dir, name))).mode & 0o777);
    expect(await Promise.all(modes)).toEqual([0o600, 0o600, 0o600]);
  });
});

interface Thing {
  readonly id: string;
  readonly sandboxId: string;
  readonly phase: 'creating' | 'live' | 'removing';
  readonly at?: bigint | undefined;
  readonly labels?: Record<string, string>;
}

describe('RecordStore', () => {
  const extra = { sandbox_id: (c: Thing) => c.sandboxId };
  const containers = (db = database()) => new RecordStore<Thing>(db, 'containers', 'container', extra);
  const sandboxes = (db = database()) => new RecordStore<{ id: string }>(db, 'sandboxes', 'sandbox');
  const thing = (over: Partial<Thing> = {}): Thing => ({
    id: 'c1',
    sandboxId: 'sb1',
    phase: 'creating',
    ...over,
  });

  beforeEach(() => {
    sandboxes().put({ id: 'sb1' });
    sandboxes().put({ id: 'sb2' });
  });

  it('has what was put, changed and deleted, at once and after reopening', () => {
    const store = containers();
    store.put(thing());
    store.put(thing({ id: 'c2', at: 2n ** 63n - 1n, labels: { $bigint: 'x' } }));
    store.put(thing({ id: 'c3' }));
    store.delete('c3');
    expect(store.update('c1', { phase: 'live' })).toEqual(thing({ phase: 'live' }));
    const expected = [
      thing({ phase: 'live' }),
      thing({ id: 'c2', at: 2n ** 63n - 1n, labels: { $bigint: 'x' } }),
    ];
    expect([...store.values()]).toEqual(expected);
    expect([...containers().values()]).toEqual(expected);
  });

  it.each(['creating', 'live', 'removing'] as const)('finds a record in phase %s again', (phase) => {
    containers().put(thing({ phase }));
    expect(containers().get('c1')).toEqual(thing({ phase }));
  });

  it('forgets a member that is set to undefined', () => {
    const store = containers();
    store.put(thing({ at: 1n }));
    store.update('c1', { at: undefined });
    expect(store.get('c1')?.at).toBeUndefined();
    expect(containers().get('c1')).toStrictEqual(thing());
  });

  it('never changes a record that somebody holds', () => {
    const store = containers();
    store.put(thing());
    const held = store.require('c1');
    store.update('c1', { phase: 'removing' });
    expect(held.phase).toBe('creating');
  });

  it('tells nobody of what the disk did not take', () => {
    const db = database();
    const store = containers(db);
    store.put(thing());
    const absent = thing({ id: 'c2', sandboxId: 'no such sandbox' });
    expect(() => store.put(absent)).toThrow(/FOREIGN KEY/);
    expect(store.get('c2')).toBeUndefined();
    db.close();
    expect(() => store.update('c1', { phase: 'live' })).toThrow();
    expect(() => store.delete('c1')).toThrow();
    expect(store.get('c1')).toEqual(thing());
    expect(containers().get('c1')).toEqual(thing());
  });

  it('does not delete a sandbox that a container needs', () => {
    containers().put(thing());
    const store = sandboxes();
    expect(() => store.delete('sb1')).toThrow(/FOREIGN KEY/);
    expect(store.get('sb1')).toEqual({ id: 'sb1' });
    store.delete('sb2');
    expect([...sandboxes().values()]).toEqual([{ id: 'sb1' }]);
  });

  it('calls what is not there by its noun; deleting it is done', () => {
    const store = containers();
    expect(store.get('c9')).toBeUndefined();
    const absent = expect.objectContaining({ kind: 'notFound', message: 'container "c9" not found' });
    expect(() => store.require('c9')).toThrow(absent);
    expect(() => store.update('c9', { phase: 'live' })).toThrow(absent);
    store.delete('c9');
  });

  it('names a record that cannot be read', () => {
    containers().put(thing());
    raw("UPDATE containers SET record = '{\"id\":' WHERE id = 'c1'");
    expect(() => containers()).toThrow(/^record containers c1 in the database: /);
  });
});
