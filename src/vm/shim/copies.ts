import { constants, type FSWatcher, watch } from 'node:fs';
import { lstat, open, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { BerthError, messageOf } from '../../errors.ts';
import { KeyedMutex } from '../../util/keyed-mutex.ts';
import type { GuestFile } from '../protocol/messages.ts';
import type { GuestAgent, Log } from './machine.ts';
import type { GuestVolume, HostVolume } from './volumes.ts';

/** Where the agent keeps copies and directories of its own. */
const GUEST_DIR = '/run/berth/volumes';
/** Of one volume: the kubelet's have a MiB each, a projected one the sum of some. */
const MAX_BYTES = 8 << 20;
const MAX_FILES = 2_000;
/** Bytes of one piece: a message has at most a MiB, and base64 makes a third more of it. */
const PIECE = 512 << 10;
/** Changes come in groups, milliseconds. */
const SETTLE_MS = 50;
/** Of a termination message, of which the kubelet reads 4 KiB; and how long an end may wait for it, milliseconds. */
const MAX_MESSAGE = 64 << 10;
const MESSAGE_MS = 2_000;

/**
 * What a mount's source can be to a guest that shares no files with this host:
 *
 * - `copied`: small files of the kubelet's, in the guest as they are on the host, also when they change there
 * - `message`: the file of a container's last words, which is brought back when it ends
 * - `guest`: a directory of the guest's own, which is the same for all of the pod's containers
 * - `image`: a directory that is a copy of what the image has there anyway
 */
export type CopyKind = 'copied' | 'message' | 'guest' | 'image';

const KINDS: readonly [RegExp, CopyKind][] = [
  [/\/containers\/[0-9a-f]{64}\/volumes\/\d+$/, 'image'],
  [/\/pods\/[^/]+\/volumes\/kubernetes\.io~(configmap|secret|projected|downward-api)\/[^/]+$/, 'copied'],
  [/\/pods\/[^/]+\/volumes\/kubernetes\.io~empty-dir\/[^/]+$/, 'guest'],
  [/\/pods\/[^/]+\/containers\/[^/]+\/[^/]+$/, 'message'],
  [/\/pods\/[^/]+\/volume-subpaths\/.*\/\d+$/, 'copied'],
];
/** Files that berthd and the kubelet make for every pod. */
const POD_FILES = new Set(['/etc/hosts', '/etc/hostname', '/etc/resolv.conf']);

/**
 * By the places at which the kubelet and berthd make them, since only these tell what a directory is for. Pure.
 *
 * @throws BerthError `unimplemented` naming the mount, for what cannot be had without a shared file system
 */
export function copyKind(source: string, destination: string): CopyKind {
  if (POD_FILES.has(destination)) return 'copied';
  const [, kind] = KINDS.find(([place]) => place.test(source)) ?? [];
  if (kind !== undefined) return kind;
  throw new BerthError(
    'unimplemented',
    `mounts: ${destination} (${source}) is not possible with this runtime handler: its hypervisor shares no ` +
      'directories, only ConfigMaps, Secrets, projected and downward-API volumes, emptyDirs and the pod’s own files',
  );
}

interface Copy {
  source: string;
  target: string;
  kind: CopyKind;
  users: Set<string>;
  watcher: FSWatcher | undefined;
}

/** The small files of a pod that its guest has copies of. */
export class Copies {
  readonly #agent: GuestAgent;
  readonly #log: Log;
  readonly #turns = new KeyedMutex();
  /** By source. */
  readonly #copies = new Map<string, Copy>();
  #count = 0;

  constructor(agent: GuestAgent, log: Log) {
    this.#agent = agent;
    this.#log = log;
  }

  /**
   * Has the guest know what a container mounts; from then on changes are passed on.
   *
   * @throws BerthError `unimplemented`, `exhausted` for too many or too large files
   */
  async add(id: string, volumes: readonly HostVolume[]): Promise<(GuestVolume | 'image')[]> {
    const kinds = volumes.map(({ source, destination }) => copyKind(source, destination));
    const added: (GuestVolume | 'image')[] = [];
    for (const [index, { source, readonly }] of volumes.entries()) {
      const kind = kinds[index] ?? 'image';
      if (kind === 'image') added.push(kind);
      else added.push({ path: await this.#use(id, source, kind), readonly: readonly !== false });
    }
    return added;
  }

  /** @returns its path in the guest */
  #use(id: string, source: string, kind: CopyKind): Promise<string> {
    return this.#turns.run(source, async () => {
      const known = this.#copies.get(source);
      if (known !== undefined) {
        known.users.add(id);
        return known.target;
      }
      const target = `${GUEST_DIR}/${++this.#count}`;
      const copy: Copy = { source, target, kind, users: new Set([id]), watcher: undefined };
      await this.#put(copy);
      this.#copies.set(source, copy);
      // What changed between the copy and the watcher must not be missed.
      if (kind === 'copied') {
        this.#watch(copy);
        await this.#put(copy);
      }
      return target;
    });
  }

  /** A container needs nothing any more. Directories of the guest's own stay for later containers. Repeatable. */
  remove(id: string): void {
    for (const [source, copy] of this.#copies) {
      if (!copy.users.delete(id) || copy.users.size > 0 || copy.kind === 'guest') continue;
      copy.watcher?.close();
      this.#copies.delete(source);
    }
  }

  /** Writes a container's last words where the kubelet looks for them. Never rejects. */
  async bringBack(id: string): Promise<void> {
    for (const { kind, users, source, target } of this.#copies.values()) {
      if (kind !== 'message' || !users.has(id)) continue;
      try {
        const request = { path: target, maxBytes: MAX_MESSAGE };
        const { data } = await this.#agent.call('getFile', request, AbortSignal.timeout(MESSAGE_MS));
        // It is the kubelet's, and there; whatever else is there now is not for the guest to write to.
        const file = await open(source, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_TRUNC);
        const words = Buffer.from(data, 'base64').subarray(0, MAX_MESSAGE);
        await file.writeFile(words).finally(() => file.close());
      } catch (e: unknown) {
        this.#log('warn', `${source}: the termination message is lost: ${messageOf(e)}`);
      }
    }
  }

  /** Repeatable. */
  close(): void {
    for (const { watcher } of this.#copies.values()) watcher?.close();
    this.#copies.clear();
  }

  #watch(copy: Copy): void {
    let isComing = false;
    const renew = (): void => {
      isComing = false;
      void this.#turns.run(copy.source, () => this.#renew(copy));
    };
    copy.watcher = watch(copy.source, { persistent: false }, () => {
      if (!isComing) setTimeout(renew, SETTLE_MS).unref();
      isComing = true;
    });
    copy.watcher.on('error', (e) =>
      this.#log('warn', `${copy.source}: changes are not seen: ${messageOf(e)}`),
    );
  }

  async #renew(copy: Copy): Promise<void> {
    if (this.#copies.get(copy.source) !== copy) return;
    await this.#put(copy).catch((e: unknown) =>
      this.#log('warn', `${copy.source}: the guest has an old copy: ${messageOf(e)}`),
    );
  }

  async #put({ source, target, kind }: Copy): Promise<void> {
    const files = kind === 'guest' ? [await describe(source, '')] : await readTree(source);
    const keep = files.filter(({ path }) => path !== '').map(({ path }) => path);
    const isTree = kind === 'copied' && files[0]?.kind === 'directory';
    const messages = batches(files);
    for (const [index, entries] of messages.entries()) {
      const isLast = index === messages.length - 1;
      await this.#agent.call('putFiles', { target, entries, ...(isTree && isLast ? { keep } : {}) });
    }
  }
}

/** A file, or a directory with all in it; links come last, since they make what is new visible. */
async function readTree(source: string): Promise<GuestFile[]> {
  const files: GuestFile[] = [];
  let bytes = 0;
  const visit = async (path: string): Promise<void> => {
    const file = await describe(source, path);
    if (file.kind === 'file') {
      const data = await readFile(join(source, path));
      bytes += data.length;
      file.data = data.toString('base64');
    }
    files.push(file);
    if (bytes > MAX_BYTES || files.length > MAX_FILES) {
      throw new BerthError('exhausted', `${source}: more than ${MAX_BYTES >> 20} MiB or ${MAX_FILES} files`);
    }
    if (file.kind !== 'directory') return;
    for (const name of await readdir(join(source, path))) await visit(join(path, name));
  };
  await visit('');
  const isLink = ({ kind }: GuestFile): boolean => kind === 'link';
  return [...files.filter((file) => !isLink(file)), ...files.filter(isLink)];
}

async function describe(source: string, path: string): Promise<GuestFile> {
  const at = join(source, path);
  const found = await lstat(at);
  const { uid, gid } = found;
  const owned = { path, mode: found.mode & 0o7777, uid, gid };
  if (found.isDirectory()) return { ...owned, kind: 'directory' };
  if (found.isSymbolicLink()) return { ...owned, kind: 'link', data: await readlink(at) };
  if (found.isFile()) return { ...owned, kind: 'file' };
  throw new BerthError('unimplemented', `mounts: ${at} is no file that could be copied`);
}

/** Messages of at most {@link PIECE} bytes of content; a large file comes in pieces. Exported for tests. */
export function batches(files: readonly GuestFile[]): GuestFile[][] {
  const pieces = files.flatMap((file) => {
    const { kind, data = '' } = file;
    if (kind !== 'file' || data.length <= PIECE) return [file];
    // Whole groups of base64.
    const count = Math.ceil(data.length / PIECE);
    return Array.from({ length: count }, (_, index) => ({
      ...file,
      data: data.slice(index * PIECE, (index + 1) * PIECE),
      append: index > 0,
    }));
  });
  const result: GuestFile[][] = [];
  let room = 0;
  for (const piece of pieces) {
    // The names count as well.
    const size = (piece.data?.length ?? 0) + piece.path.length + 128;
    if (size > room || result.length === 0) {
      result.push([]);
      room = PIECE + 1024;
    }
    result.at(-1)?.push(piece);
    room -= size;
  }
  return result;
}
