import { chmod, mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { CollectGarbageRequest__Output } from '../proto/gen/berth/v1/CollectGarbageRequest.ts';
import type { ExportImagesRequest__Output } from '../proto/gen/berth/v1/ExportImagesRequest.ts';
import type { ExportImagesResponse } from '../proto/gen/berth/v1/ExportImagesResponse.ts';
import type { ImportImageRequest__Output } from '../proto/gen/berth/v1/ImportImageRequest.ts';
import type { PullImageRequest__Output } from '../proto/gen/berth/v1/PullImageRequest.ts';
import type { PullProgress } from '../proto/gen/berth/v1/PullProgress.ts';
import { loadProtos } from '../proto/load.ts';
import type { RecoveryProgress } from '../src/recover.ts';
import type { Services } from '../src/services.ts';
import { removeStaleSocket } from '../src/util/stale-socket.ts';
import { GrpcServer } from './grpc/server.ts';
import { collectGarbageRpc } from './node-service/collect-garbage.ts';
import { diskUsageRpc } from './node-service/disk-usage.ts';
import { exportImagesRpc } from './node-service/export-images.ts';
import { importImage } from './node-service/import-image.ts';
import { info } from './node-service/info.ts';
import { pullWithProgress } from './node-service/pull-image.ts';
import { imageService, runtimeService } from './services.ts';
import { type CallContext, clientStream, serverStream, unary } from './unary.ts';

/** How long a shutdown waits for calls in flight, milliseconds. */
const DRAIN_MS = 10_000;

/** A served socket. */
export interface CriServer {
  /** Takes no more calls, waits for those in flight for a while, and removes the socket. Repeatable. */
  close(): Promise<void>;
}

/**
 * Serves CRI and berth's own service on a unix socket (`unix:///path`), mode 0660.
 *
 * @param recovery calls other than Version, Status and the like wait for it
 * @throws BerthError `precondition` when another daemon answers on the socket
 */
export async function serve(s: Services, recovery: RecoveryProgress, listen: string): Promise<CriServer> {
  const path = listen.slice('unix://'.length);
  await mkdir(dirname(path), { recursive: true, mode: 0o711 });
  await removeStaleSocket(path, 'listen');
  const protos = loadProtos();
  const context: CallContext = {
    log: s.log,
    recovery,
    observe: (name) => s.metrics.rpc(name),
  };
  const server = new GrpcServer();
  server.addService(protos.runtimeService, runtimeService(s, context, protos.runtimeService));
  server.addService(protos.imageService, imageService(s, context, protos.imageService));
  server.addService(protos.node, {
    ImportImage: clientStream<ImportImageRequest__Output, unknown>(
      'ImportImage',
      context,
      (requests, signal) => importImage(s, requests, signal),
    ),
    ExportImages: serverStream<ExportImagesRequest__Output, ExportImagesResponse>(
      'ExportImages',
      context,
      (request, send, signal) => exportImagesRpc(s, request, send, signal),
    ),
    PullImage: serverStream<PullImageRequest__Output, PullProgress>(
      'Node.PullImage',
      context,
      (request, send, signal) => pullWithProgress(s, request, send, signal),
    ),
    DiskUsage: unary('DiskUsage', context, () => diskUsageRpc(s), { quiet: true }),
    CollectGarbage: unary<CollectGarbageRequest__Output, unknown>('CollectGarbage', context, (request) =>
      collectGarbageRpc(s, request),
    ),
    Info: unary('Info', context, () => info(s), { waitsFor: 'nothing', quiet: true }),
  });
  await server.listen(path);
  // The socket is made with the umask's mode; whoever may connect rules the node.
  await chmod(path, 0o660);
  let closing: Promise<void> | undefined;
  return { close: () => (closing ??= close(s, server, path)) };
}

async function close(s: Services, server: GrpcServer, path: string): Promise<void> {
  // Calls that wait for events end only when their callers leave.
  s.events.close();
  await server.close(DRAIN_MS);
  await rm(path, { force: true });
}
