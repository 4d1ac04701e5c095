import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { BerthError, kindOf, messageOf } from '../../errors.ts';
import { spawnChild } from '../../sys/spawn.ts';
import type { Growth } from '../growth.ts';
import { notice } from './follow.ts';
import type { UnpackLimits, UnpackMessage, UnpackResult } from './protocol.ts';

/** Run from source by Node's type stripping, from the build as JavaScript. */
const HELPER = fileURLToPath(
  new URL(`./helper.${import.meta.filename.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url),
);

/** Milliseconds without progress after which an unpacking is given up: a dead disk, not a slow one. */
const STALL_MS = 120_000;
/** Milliseconds for one layer in all: work that is crafted to take for ever must end. */
const TOTAL_MS = 3600_000;
/** Node's heap for data that die young; the layer streams through in buffers outside of it. */
const HEAP_FLAGS = ['--max-old-space-size=256', '--max-semi-space-size=1'];

/** What to unpack and where. */
export interface UnpackJob {
  /** Stored, or being fetched: then `signal` must fire when that fails. */
  blob: Growth;
  /** Of the blob when it is complete, in bytes. */
  blobBytes: number;
  /** An existing empty directory. */
  target: string;
  /** The diff ID that the image's config promises. */
  diffId: string;
  limits?: Partial<UnpackLimits>;
  signal: AbortSignal;
  /** Called with decompressed bytes so far, a few times a second. */
  onProgress?: (bytes: number) => void;
}

/**
 * Unpacks one layer blob in a process of its own and checks its diff ID.
 *
 * @throws BerthError `invalid` for a layer that is refused or has another diff ID, `exhausted` past a
 * limit or with a full disk, `cancelled`, `deadline` when it stalls. The target's content is then the
 * caller's to remove.
 */
export async function unpackLayer(job: UnpackJob): Promise<UnpackResult> {
  const { blobBytes } = job;
  const source = await job.blob.open();
  try {
    const limits = { ...defaultLimits(blobBytes), ...job.limits };
    const algorithm = job.diffId.slice(0, job.diffId.indexOf(':'));
    const request = JSON.stringify({ target: job.target, algorithm, blobBytes, limits });
    const message = await runHelper(request, source.fd, job);
    if (message.kind === 'failure') throw new BerthError(message.errorKind, message.message);
    if (message.diffId !== job.diffId) {
      throw new BerthError(
        'invalid',
        `layer: its diff ID is ${message.diffId}, the image's config says ${job.diffId}`,
      );
    }
    return message;
  } finally {
    await source.close();
  }
}

const GiB = 2 ** 30;

/**
 * A decompression bomb is told by its ratio: real layers seldom pass 20, while gzip reaches 1000 and zstd
 * far more. Small blobs are exempt, as a small layer of zeros is harmless.
 */
function defaultLimits(blobBytes: number): UnpackLimits {
  return { inodes: 4_000_000, bytes: Math.min(Math.max(8 * GiB, 200 * blobBytes), 512 * GiB) };
}

type LastMessage = Exclude<UnpackMessage, { kind: 'progress' }>;

async function runHelper(request: string, blobFd: number, job: UnpackJob): Promise<LastMessage> {
  job.signal.throwIfAborted();
  const child = spawnChild(
    process.execPath,
    [...HEAP_FLAGS, '--disable-warning=ExperimentalWarning', HELPER, request],
    { stdio: [blobFd, 'out', 'out', 'in'], env: {}, cwd: '/' },
  );
  const [, stdout, stderr, notices] = child.pipes;
  if (stdout === undefined || stderr === undefined || notices === undefined)
    throw new BerthError('internal', 'unpacking: the helper has no pipes');
  let last: LastMessage | undefined;
  let cause: unknown;
  let complaint = '';
  const stop = (why: unknown): void => {
    cause ??= why;
    // SIGKILL on every way out: the process holds nothing that it would have to put in order.
    if (!child.reaped) process.kill(child.pid, 'SIGKILL');
  };
  const onAbort = (): void => stop(job.signal.reason);
  // While bytes are still to come, the download's clock counts, not this one.
  const stalled = (): void => {
    if (job.blob.isComplete) stop(new BerthError('deadline', 'unpacking a layer made no progress'));
    else stall.refresh();
  };
  const stall = setTimeout(stalled, STALL_MS);
  const tooLong = (): void => stop(new BerthError('deadline', 'unpacking a layer took too long'));
  const total = setTimeout(tooLong, TOTAL_MS);
  job.signal.addEventListener('abort', onAbort, { once: true });
  createInterface({ input: stdout }).on('line', (line) => {
    stall.refresh();
    try {
      // Written by our own helper, which only ever sends these.
      const message = JSON.parse(line) as UnpackMessage;
      if (message.kind === 'progress') job.onProgress?.(message.bytes);
      else last = message;
    } catch (e: unknown) {
      stop(e);
    }
  });
  stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-2000);
  });
  // The helper may have ended; how, it tells itself.
  notices.on('error', () => {});
  const telling = tell(job.blob, notices);
  const { code, signal } = await child.exited;
  clearTimeout(stall);
  clearTimeout(total);
  job.signal.removeEventListener('abort', onAbort);
  await Promise.all([stdout, stderr].map((pipe) => finished(pipe, { writable: false }).catch(() => {})));
  notices.destroy();
  telling.stop();
  if (cause !== undefined) throw new BerthError(kindOf(cause), `unpacking: ${messageOf(cause)}`, { cause });
  if (last === undefined)
    throw new BerthError('internal', `unpacking: the helper ended (${signal ?? code}): ${complaint.trim()}`);
  return last;
}

/** Tells the helper how far the blob has grown, until `stop`. */
function tell(blob: Growth, notices: Socket): { stop: () => void } {
  let stopped = false;
  const next = (): void => {
    if (stopped) return;
    notices.write(notice(blob.bytes));
    if (!blob.isComplete) void blob.changed().then(next);
  };
  next();
  return {
    stop: () => {
      stopped = true;
    },
  };
}
