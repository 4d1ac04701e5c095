import { spawn } from 'node:child_process';
import { open } from 'node:fs/promises';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { BerthError, kindOf, messageOf } from '../../errors.ts';
import type { UnpackLimits, UnpackMessage, UnpackResult } from './protocol.ts';

/** Run from source by Node's type stripping, from the build as JavaScript. */
const HELPER = fileURLToPath(new URL(`./helper${extname(fileURLToPath(import.meta.url))}`, import.meta.url));

/** Milliseconds without progress after which an unpacking is given up: a dead disk, not a slow one. */
const STALL_MS = 120_000;
/** Milliseconds for one layer in all: work that is crafted to take for ever must end. */
const TOTAL_MS = 3600_000;
/** Node's heap for data that die young; the layer streams through in buffers outside of it. */
const HEAP_FLAGS = ['--max-old-space-size=256', '--max-semi-space-size=1'];

/** What to unpack and where. */
export interface UnpackJob {
  /** The stored blob. */
  blob: string;
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
  const source = await open(job.blob, 'r');
  try {
    const { size } = await source.stat();
    const limits = { ...defaultLimits(size), ...job.limits };
    const algorithm = job.diffId.slice(0, job.diffId.indexOf(':'));
    const request = JSON.stringify({ target: job.target, algorithm, limits });
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

function runHelper(request: string, stdin: number, job: UnpackJob): Promise<LastMessage> {
  job.signal.throwIfAborted();
  // SIGKILL on every way out: the process holds nothing that it would have to put in order.
  const child = spawn(
    process.execPath,
    [...HEAP_FLAGS, '--disable-warning=ExperimentalWarning', HELPER, request],
    {
      stdio: [stdin, 'pipe', 'pipe'],
      env: {},
      cwd: '/',
    },
  );
  const { promise, resolve, reject } = Promise.withResolvers<LastMessage>();
  let last: LastMessage | undefined;
  let cause: unknown;
  let stderr = '';
  const stop = (why: unknown): void => {
    cause ??= why;
    child.kill('SIGKILL');
  };
  const onAbort = (): void => stop(job.signal.reason);
  const stalled = (): void => stop(new BerthError('deadline', 'unpacking a layer made no progress'));
  const stall = setTimeout(stalled, STALL_MS);
  const total = setTimeout(
    () => stop(new BerthError('deadline', 'unpacking a layer took too long')),
    TOTAL_MS,
  );
  job.signal.addEventListener('abort', onAbort, { once: true });
  const { stdout, stderr: errors } = child;
  if (stdout === null || errors === null)
    throw new BerthError('internal', 'unpacking: the helper has no pipes');
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
  errors.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-2000);
  });
  child.on('error', (e) => {
    cause ??= e;
  });
  child.on('close', (code, signal) => {
    clearTimeout(stall);
    clearTimeout(total);
    job.signal.removeEventListener('abort', onAbort);
    if (cause !== undefined)
      reject(new BerthError(kindOf(cause), `unpacking: ${messageOf(cause)}`, { cause }));
    else if (last !== undefined) resolve(last);
    else
      reject(new BerthError('internal', `unpacking: the helper ended (${signal ?? code}): ${stderr.trim()}`));
  });
  return promise;
}
