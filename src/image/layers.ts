import { randomBytes } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readdirSync, renameSync } from 'node:fs';
import { chmod, chown, lstat, mkdir, utimes } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { BerthError } from '../errors.ts';
import type { Database } from '../persist/database.ts';
import { run } from '../sys/exec.ts';
import { markTopDirectory } from '../sys/inode-flags.ts';
import { orAborted } from '../util/abort.ts';
import { SingleFlight } from '../util/single-flight.ts';
import type { Growth } from './growth.ts';
import { joinOrDo } from './join.ts';
import { Semaphore } from './semaphore.ts';
import type { UnpackResult } from './unpack/protocol.ts';
import { unpackLayer } from './unpack/run.ts';
import { UnpackSlots } from './unpack/slots.ts';

/**
 * Layers unpacked at once in the daemon: more than there are processors would only fight for them. One more
 * than that, as a layer that is being downloaded waits half of the time.
 */
const UNPACK_SLOTS = Math.min(Math.max(availableParallelism(), 2), 8) + 1;
/** Milliseconds for removing one layer's files. */
const REMOVE_MS = 600_000;
/** Layers removed at once: it must not take the disk from pods. */
const REMOVALS = 2;
/** Bytes of the unit of `st_blocks` (stat(2)). */
const BLOCK = 512;
const NEVER = new AbortController().signal;
/** Prefix of folders that are no layers: being unpacked, or being removed. */
const TEMPORARY = '.tmp-';

/** One layer to be had. */
export interface LayerJob {
  chainId: string;
  diffId: string;
  /** Stored, or being fetched. */
  blob: Growth;
  /** Of the whole blob, in bytes. */
  blobBytes: number;
  /** Resolves when the blob is stored and verified; the layer does not count before. */
  stored: Promise<unknown>;
  /** Chain IDs of the layers below, base first. */
  below: readonly string[];
  /** Resolves when all of `below` are there. */
  belowReady: Promise<unknown>;
  signal: AbortSignal;
  /** Decompressed bytes so far. */
  onProgress?: (bytes: number) => void;
}

interface LayerRow extends Record<string, string | bigint> {
  dir: string;
  opaque: bigint;
}

/**
 * Unpacked layers: `<root>/layers/<dir>/fs`, one per chain ID, and beside `fs` what was made of them. They are unpacked in any order and enter
 * their places base first, since directories that a layer's archive only implies take their attributes from
 * the layers below: overlayfs shows those of the topmost, and /tmp must not become 0755.
 */
export class LayerStore {
  readonly #root: string;
  readonly #db: Database;
  readonly #inFlight = new SingleFlight<void>();
  readonly #making = new SingleFlight<string>();
  readonly #slots = new UnpackSlots(UNPACK_SLOTS);
  readonly #removals = new Semaphore(REMOVALS);
  #unpackedBytes = 0n;

  constructor(root: string, db: Database) {
    this.#root = join(root, 'layers');
    this.#db = db;
    // Root only: setuid files of images must not be reachable for the host's users.
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
    // ext4 does not reuse an inode in the minutes after its file was removed, and looks at each such anew for
    // every new file of the block group: a layer of 5000 files beside removed ones took 14 times the CPU time.
    markTopDirectory(this.#root);
  }

  /** Layers that are being unpacked. */
  get active(): number {
    return this.#slots.active;
  }

  /** Bytes of the layers that were unpacked so far, as allocated on disk. */
  get unpackedBytes(): bigint {
    return this.#unpackedBytes;
  }

  /** The folder that holds all layers, absolute. */
  get root(): string {
    return this.#root;
  }

  /** Whether a layer is there. */
  has(chainId: string): boolean {
    const row = this.#row(chainId);
    return row !== undefined && existsSync(join(this.#root, row.dir));
  }

  /**
   * The directories of a chain for overlayfs' `lowerdir`, absolute, topmost first. They end at a layer whose
   * root is opaque: overlayfs merges roots without looking at that mark.
   *
   * @throws BerthError `internal` when one is missing
   */
  lowerdirs(chainIds: readonly string[]): string[] {
    const dirs: string[] = [];
    for (const chainId of chainIds.toReversed()) {
      const row = this.#row(chainId);
      if (row === undefined) throw new BerthError('internal', `layer ${chainId} is not unpacked`);
      dirs.push(join(this.#root, row.dir, 'fs'));
      if (row.opaque !== 0n) break;
    }
    return dirs;
  }

  /**
   * Unpacks a layer unless it is there, joining work for the same chain ID. The chain ID must be held by a
   * lease. @throws BerthError as `unpackLayer` does; nothing of the layer stays then
   */
  ensure(job: LayerJob): Promise<void> {
    const isDone = (): boolean => this.has(job.chainId);
    return joinOrDo(this.#inFlight, job.chainId, job.signal, isDone, () => this.#unpack(job));
  }

  async #unpack(job: LayerJob): Promise<void> {
    const temporary = `${TEMPORARY}${randomBytes(6).toString('hex')}`;
    const target = join(this.#root, temporary, 'fs');
    try {
      await orAborted(job.blob.begun, job.signal);
      const result = await this.#slots.run(job.signal, job.blob, async () => {
        await mkdir(target, { recursive: true, mode: 0o755 });
        return unpackLayer({ ...job, target });
      });
      this.#unpackedBytes += BigInt(result.size);
      await job.stored;
      await job.belowReady;
      await this.#inheritAttributes(target, result.impliedDirs, job.below);
      this.#commit(job.chainId, temporary, result);
    } catch (e: unknown) {
      await this.#removeTree(temporary);
      throw e;
    }
  }

  /** A short name, as many of them go into one mount option of at most a page; then rename and record at once. */
  #commit(chainId: string, temporary: string, result: UnpackResult): void {
    this.#db.transaction(() => {
      this.#db.run(
        'DELETE FROM layers WHERE chain_id = ? AND NOT EXISTS (SELECT 1 FROM image_layers WHERE chain_id = ?)',
        chainId,
        chainId,
      );
      let number = Number(
        this.#db.get<{ n: bigint }>('SELECT ifnull(max(rowid), 0) + 1 AS n FROM layers')?.n,
      );
      // A folder without a record is a leftover that the next sweep removes.
      while (existsSync(join(this.#root, number.toString(36)))) number += 1;
      const dir = number.toString(36);
      renameSync(join(this.#root, temporary), join(this.#root, dir));
      this.#db.run(
        `INSERT INTO layers (chain_id, dir, size, inodes, opaque) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (chain_id) DO UPDATE SET dir = excluded.dir`,
        chainId,
        dir,
        // With the folder that holds `fs`.
        BigInt(result.size + lstatSync(join(this.#root, dir)).blocks * BLOCK),
        BigInt(result.inodes + 1),
        result.opaqueRoot ? 1n : 0n,
      );
    });
  }

  /** Owner, mode and times of implied directories, from the nearest lower layer that has each. */
  async #inheritAttributes(
    target: string,
    implied: readonly string[],
    below: readonly string[],
  ): Promise<void> {
    if (implied.length === 0 || below.length === 0) return;
    const lowers = this.lowerdirs(below);
    for (const encoded of implied) {
      const path = Buffer.from(encoded, 'base64');
      for (const lower of lowers) {
        const stats = await lstatWithin(lower, path);
        if (stats === 'absent') continue;
        if (stats !== 'hidden') {
          // Every part of this path is a directory that the unpacking made, so nothing is followed.
          const own = Buffer.concat([Buffer.from(target), path]);
          await chown(own, stats.uid, stats.gid);
          await chmod(own, stats.mode & 0o7777);
          await utimes(own, stats.atimeMs / 1000, stats.mtimeMs / 1000);
        }
        break;
      }
    }
  }

  /**
   * A file that is made of a chain's directories, once, and lies with the topmost of them until that layer is
   * removed. What it takes of the disk counts as the layer's.
   *
   * @param make makes the file, which is not there
   * @throws BerthError `internal` when the layer is missing; what `make` throws
   */
  made(chainId: string, name: string, make: (target: string) => Promise<void>): Promise<string> {
    const place = (): string => {
      const row = this.#row(chainId);
      if (row === undefined) throw new BerthError('internal', `layer ${chainId} is not unpacked`);
      return join(this.#root, row.dir, name);
    };
    return this.#making.run(`${chainId} ${name}`, async () => {
      if (existsSync(place())) return place();
      const temporary = `${TEMPORARY}${randomBytes(6).toString('hex')}`;
      try {
        await make(join(this.#root, temporary));
      } catch (e: unknown) {
        await this.#removeTree(temporary);
        throw e;
      }
      const target = place();
      this.#db.transaction(() => {
        renameSync(join(this.#root, temporary), target);
        const bytes = BigInt(lstatSync(target).blocks * BLOCK);
        this.#db.run(
          'UPDATE layers SET size = size + ?, inodes = inodes + 1 WHERE chain_id = ?',
          bytes,
          chainId,
        );
      });
      return target;
    });
  }

  /** Removes a layer: its record and name before the first await, its files afterwards. */
  async remove(chainId: string): Promise<void> {
    const row = this.#row(chainId);
    if (row === undefined) return;
    const trash = `${TEMPORARY}${randomBytes(6).toString('hex')}`;
    this.#db.run('DELETE FROM layers WHERE chain_id = ?', chainId);
    if (!existsSync(join(this.#root, row.dir))) return;
    renameSync(join(this.#root, row.dir), join(this.#root, trash));
    await this.#removeTree(trash);
  }

  /**
   * Removes folders that no record names, as left by an earlier daemon. Which these are is settled before the
   * first await, so unpacking may begin at once.
   */
  async sweep(): Promise<void> {
    const known = new Set(this.#db.all<{ dir: string }>('SELECT dir FROM layers').map((row) => row.dir));
    const leftovers = readdirSync(this.#root).flatMap((name) => {
      if (known.has(name)) return [];
      if (name.startsWith(TEMPORARY)) return [name];
      // A new layer might get this name.
      const trash = `${TEMPORARY}${randomBytes(6).toString('hex')}`;
      renameSync(join(this.#root, name), join(this.#root, trash));
      return [trash];
    });
    await Promise.all(leftovers.map((name) => this.#removeTree(name)));
  }

  /**
   * By rm(1): a layer may have names that are not UTF-8, which Node's own removal gets wrong, and walking it
   * must not occupy this process.
   */
  async #removeTree(name: string): Promise<void> {
    const path = join(this.#root, name);
    const result = await this.#removals.run(NEVER, () =>
      run(['rm', '-rf', '--one-file-system', '--', path], { timeoutMs: REMOVE_MS, maxOutput: 4096 }),
    );
    if (result.code !== 0)
      throw new BerthError('internal', `removing ${path}: ${result.stderr.toString().trim()}`);
  }

  #row(chainId: string): LayerRow | undefined {
    return this.#db.get<LayerRow>('SELECT dir, opaque FROM layers WHERE chain_id = ?', chainId);
  }
}

/**
 * The directory `path` of a layer, looked up part by part so that no symlink of the image is followed.
 * `hidden` when something of the layer keeps what is below it from being seen.
 */
async function lstatWithin(layer: string, path: Buffer) {
  const parts = path.toString('latin1').split('/').slice(1);
  for (let i = 1; i <= parts.length; i++) {
    const sub = Buffer.from(`/${parts.slice(0, i).join('/')}`, 'latin1');
    let stats: Awaited<ReturnType<typeof lstat>>;
    try {
      stats = await lstat(Buffer.concat([Buffer.from(layer), sub]));
    } catch {
      return 'absent';
    }
    if (!stats.isDirectory()) return 'hidden';
    if (i === parts.length) return stats;
  }
  return 'absent';
}
