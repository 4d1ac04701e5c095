import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { BerthError, isErrno, kindOf, messageOf } from '../../errors.ts';
import { chroot } from '../../sys/chroot.ts';
import { TarReader } from '../tar/reader.ts';
import { LayerApplier } from './apply.ts';
import { decompress } from './decompress.ts';
import { follow } from './follow.ts';
import type { UnpackMessage, UnpackRequest } from './protocol.ts';
import { measureTree } from './tree.ts';

/**
 * The process that unpacks one layer: `node helper.ts <UnpackRequest>`, the layer on stdin, notices of its
 * growth on descriptor 3, messages on stdout. It makes the target its root before it reads a byte of the layer, so everything it needs is
 * imported above: after that, no module can be loaded.
 *
 * There is no mount namespace of its own: unshare(CLONE_NEWNS) also unshares the root directory between
 * threads, so that chroot(2) would leave libuv's threads outside.
 */

/** Milliseconds between two progress messages. */
const PROGRESS_MS = 250;
const READ_SIZE = 256 * 1024;
const NOTICES_FD = 3;

function send(message: UnpackMessage): void {
  const line = Buffer.from(`${JSON.stringify(message)}\n`);
  // Throws EPIPE when the daemon is gone, which ends this process.
  for (let at = 0; at < line.length; ) at += writeSync(1, line, at);
}

async function unpack(request: UnpackRequest): Promise<void> {
  process.umask(0);
  chroot(request.target);
  const hash = createHash(request.algorithm);
  const applier = new LayerApplier(request.limits);
  const reader = new TarReader(applier);
  let bytes = 0;
  let reported = performance.now();
  const notices = new Socket({ fd: NOTICES_FD, readable: true, writable: false });
  for await (const chunk of decompress(follow(0, notices, request.blobBytes, READ_SIZE))) {
    bytes += chunk.length;
    if (bytes > request.limits.bytes) {
      throw new BerthError('exhausted', `layer: unpacks to more than ${request.limits.bytes} bytes`);
    }
    hash.update(chunk);
    reader.push(chunk);
    if (performance.now() - reported < PROGRESS_MS) continue;
    reported = performance.now();
    send({ kind: 'progress', bytes, inodes: applier.tree.inodes });
  }
  reader.finish();
  applier.finish();
  send({
    kind: 'result',
    diffId: `${request.algorithm}:${hash.digest('hex')}`,
    ...measureTree(),
    opaqueRoot: applier.opaqueRoot,
    impliedDirs: Array.from(applier.tree.implied, (path) => Buffer.from(path, 'latin1').toString('base64')),
  });
}

/** What the layer's content, not the host, is to blame for. */
function failureOf(e: unknown): BerthError {
  if (isErrno(e, 'ENOSPC', 'EDQUOT')) return new BerthError('exhausted', `unpacking: ${messageOf(e)}`);
  if (isErrno(e, 'ENAMETOOLONG', 'ELOOP', 'ENOTDIR', 'EINVAL', 'EEXIST', 'ERANGE', 'EFBIG')) {
    return new BerthError('invalid', `layer: ${messageOf(e)}`);
  }
  return e instanceof BerthError ? e : new BerthError(kindOf(e), `unpacking: ${messageOf(e)}`);
}

try {
  // Checked by the only caller, which is this project's own.
  await unpack(JSON.parse(process.argv[2] ?? '') as UnpackRequest);
} catch (e: unknown) {
  const failure = failureOf(e);
  send({ kind: 'failure', errorKind: failure.kind, message: failure.message });
  process.exit(1);
}
process.exit(0);
