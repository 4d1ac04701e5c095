import type { ImageServiceDefinition } from '../proto/gen/runtime/v1/ImageService.ts';
import type { RuntimeServiceDefinition } from '../proto/gen/runtime/v1/RuntimeService.ts';
import type { Protos } from '../proto/load.ts';
import type { ContainerRecord } from '../src/container/record.ts';
import type { SandboxRecord } from '../src/sandbox/record.ts';
import type { Services } from '../src/services.ts';
import { EncodedList } from './encoded-list.ts';
import type { Rpc } from './grpc/rpc.ts';
import { imageFsInfo } from './image-service/image-fs-info.ts';
import { imageStatus } from './image-service/image-status.ts';
import { listImages } from './image-service/list-images.ts';
import { pullImage } from './image-service/pull-image.ts';
import { removeImage } from './image-service/remove-image.ts';
import { toContainer, toContainerStatus } from './mapping/container.ts';
import { filterContainers, filterSandboxes } from './mapping/filters.ts';
import { encodeMetricsResponse } from './mapping/metrics.ts';
import { toPodSandbox, toPodSandboxStatus } from './mapping/sandbox.ts';
import { attachRpc } from './runtime-service/attach.ts';
import { containerStatsRpc } from './runtime-service/container-stats.ts';
import { containerStatus } from './runtime-service/container-status.ts';
import { createContainerRpc } from './runtime-service/create-container.ts';
import { execRpc } from './runtime-service/exec.ts';
import { execSyncRpc } from './runtime-service/exec-sync.ts';
import { getContainerEvents } from './runtime-service/get-container-events.ts';
import { collectStats, listContainerStats } from './runtime-service/list-container-stats.ts';
import { listContainers } from './runtime-service/list-containers.ts';
import { listMetricDescriptors } from './runtime-service/list-metric-descriptors.ts';
import { listPodSandbox } from './runtime-service/list-pod-sandbox.ts';
import { encodedPodMetrics, listPodSandboxMetrics } from './runtime-service/list-pod-sandbox-metrics.ts';
import { collectSandboxStats, listPodSandboxStats } from './runtime-service/list-pod-sandbox-stats.ts';
import { podSandboxStatsRpc } from './runtime-service/pod-sandbox-stats.ts';
import { podSandboxStatus } from './runtime-service/pod-sandbox-status.ts';
import { portForwardRpc } from './runtime-service/port-forward.ts';
import { removeContainerRpc } from './runtime-service/remove-container.ts';
import { removePodSandboxRpc } from './runtime-service/remove-pod-sandbox.ts';
import { reopenContainerLogRpc } from './runtime-service/reopen-container-log.ts';
import { runPodSandboxRpc } from './runtime-service/run-pod-sandbox.ts';
import { runtimeConfig } from './runtime-service/runtime-config.ts';
import { startContainerRpc } from './runtime-service/start-container.ts';
import { status } from './runtime-service/status.ts';
import { stopContainerRpc } from './runtime-service/stop-container.ts';
import { stopPodSandboxRpc } from './runtime-service/stop-pod-sandbox.ts';
import { updateContainerResourcesRpc } from './runtime-service/update-container-resources.ts';
import { updatePodSandboxResourcesRpc } from './runtime-service/update-pod-sandbox-resources.ts';
import { updateRuntimeConfig } from './runtime-service/update-runtime-config.ts';
import { version } from './runtime-service/version.ts';
import { type CallContext, type CallOptions, serverStream, unary, unimplemented } from './unary.ts';

/** A unary RPC's own part; the wrapper does the rest. */
type Handler<I = never, O = unknown> = (s: Services, request: I, signal: AbortSignal) => Promise<O>;

/** What a method takes and answers, by the generated types. */
type Request<M> = M extends { requestDeserialize: (bytes: Buffer) => infer I } ? I : never;
type Response<M> = M extends { responseSerialize: (message: infer O) => Buffer } ? O : never;
/** The methods of a generated definition, without its index signature. */
type NameOf<Definition> = keyof { [Name in keyof Definition as string extends Name ? never : Name]: true };

/** Unary RPCs of a service; one that answers may answer the encoded bytes. */
type Handlers<Definition> = {
  readonly [Name in NameOf<Definition> & keyof Definition]?: readonly [
    Handler<Request<Definition[Name]>, Response<Definition[Name]> | Buffer>,
    CallOptions,
  ];
};

/** RPCs of a service, wrapped. */
type Rpcs<Definition> = {
  readonly [Name in NameOf<Definition> & keyof Definition]?: Rpc<
    Request<Definition[Name]>,
    Response<Definition[Name]> | Buffer
  >;
};

const early: CallOptions = { waitsFor: 'nothing', quiet: true };
const read: CallOptions = { waitsFor: 'records', quiet: true };
const change: CallOptions = {};

const runtimeHandlers: Handlers<RuntimeServiceDefinition> = {
  Version: [version, early],
  Status: [status, early],
  RuntimeConfig: [runtimeConfig, early],
  UpdateRuntimeConfig: [updateRuntimeConfig, change],
  RunPodSandbox: [runPodSandboxRpc, change],
  StopPodSandbox: [stopPodSandboxRpc, change],
  RemovePodSandbox: [removePodSandboxRpc, change],
  CreateContainer: [createContainerRpc, change],
  StartContainer: [startContainerRpc, change],
  StopContainer: [stopContainerRpc, change],
  RemoveContainer: [removeContainerRpc, change],
  ExecSync: [execSyncRpc, { quiet: true }],
  Exec: [execRpc, change],
  Attach: [attachRpc, change],
  PortForward: [portForwardRpc, change],
  ReopenContainerLog: [reopenContainerLogRpc, change],
  UpdateContainerResources: [updateContainerResourcesRpc, change],
  UpdatePodSandboxResources: [updatePodSandboxResourcesRpc, change],
  ContainerStats: [containerStatsRpc, read],
  ListContainerStats: [listContainerStats, read],
  PodSandboxStats: [podSandboxStatsRpc, read],
  ListPodSandboxStats: [listPodSandboxStats, read],
  ListMetricDescriptors: [listMetricDescriptors, early],
  ListPodSandboxMetrics: [listPodSandboxMetrics, read],
};

const imageHandlers: Handlers<ImageServiceDefinition> = {
  ListImages: [listImages, read],
  ImageStatus: [imageStatus, read],
  PullImage: [pullImage, change],
  RemoveImage: [removeImage, change],
  ImageFsInfo: [imageFsInfo, early],
};

/**
 * Bytes per message of a streamed list, far below the 16 MiB that a client takes. Labels and annotations
 * make one item 200 bytes or more than a megabyte.
 */
const CHUNK_BYTES = 1024 * 1024;

/** Sends a list in pieces. */
async function sendChunks<T>(
  items: readonly T[],
  send: (chunk: T[]) => Promise<void>,
  // Close enough, and the encoding's own length would cost encoding twice.
  sizeOf = (item: T) => JSON.stringify(item).length,
): Promise<void> {
  let chunk: T[] = [];
  let bytes = 0;
  for (const item of items) {
    bytes += sizeOf(item);
    chunk.push(item);
    if (bytes < CHUNK_BYTES) continue;
    await send(chunk);
    chunk = [];
    bytes = 0;
  }
  if (chunk.length > 0) await send(chunk);
}

/** The runtime service: the handlers above, the lists, and UNIMPLEMENTED for all else. */
export function runtimeService(
  s: Services,
  context: CallContext,
  definition: Protos['runtimeService'],
): Readonly<Record<string, Rpc>> {
  return {
    ...implement(definition, s, context, runtimeHandlers),
    ...answersOfRecords(s, context, definition),
    ...streams(s, context),
  };
}

/** What is asked for most, and depends on nothing but the records: each is encoded once. */
function answersOfRecords(
  s: Services,
  context: CallContext,
  definition: Protos['runtimeService'],
): Rpcs<RuntimeServiceDefinition> {
  const sandboxes = new EncodedList<SandboxRecord>((record) =>
    definition.ListPodSandbox.responseSerialize({ items: [toPodSandbox(record)] }),
  );
  const containers = new EncodedList<ContainerRecord>((record) =>
    definition.ListContainers.responseSerialize({ containers: [toContainer(record)] }),
  );
  const sandboxStatuses = new EncodedList<SandboxRecord>((record) =>
    definition.PodSandboxStatus.responseSerialize({ status: toPodSandboxStatus(record) }),
  );
  const containerStatuses = new EncodedList<ContainerRecord>((record) =>
    definition.ContainerStatus.responseSerialize({ status: toContainerStatus(record) }),
  );
  return {
    PodSandboxStatus: unary(
      'PodSandboxStatus',
      context,
      (request) => podSandboxStatus(s, sandboxStatuses, request),
      read,
    ),
    ContainerStatus: unary(
      'ContainerStatus',
      context,
      (request) => containerStatus(s, containerStatuses, request),
      read,
    ),
    ListPodSandbox: unary(
      'ListPodSandbox',
      context,
      (request) => listPodSandbox(s, sandboxes, request),
      read,
    ),
    ListContainers: unary(
      'ListContainers',
      context,
      (request) => listContainers(s, containers, request),
      read,
    ),
  };
}

function streams(s: Services, context: CallContext): Rpcs<RuntimeServiceDefinition> {
  return {
    StreamPodSandboxes: serverStream(
      'StreamPodSandboxes',
      context,
      async (request, send) =>
        sendChunks(filterSandboxes(s.sandboxes.values(), request.filter).map(toPodSandbox), (chunk) =>
          send({ pod_sandboxes: chunk }),
        ),
      read,
    ),
    StreamContainers: serverStream(
      'StreamContainers',
      context,
      async (request, send) =>
        sendChunks(filterContainers(s.containers.values(), request.filter).map(toContainer), (chunk) =>
          send({ containers: chunk }),
        ),
      read,
    ),
    StreamContainerStats: serverStream(
      'StreamContainerStats',
      context,
      async (request, send) =>
        sendChunks(await collectStats(s, request.filter), (chunk) => send({ container_stats: chunk })),
      read,
    ),
    StreamPodSandboxStats: serverStream(
      'StreamPodSandboxStats',
      context,
      async (request, send) =>
        sendChunks(await collectSandboxStats(s, request.filter), (chunk) =>
          send({ pod_sandbox_stats: chunk }),
        ),
      read,
    ),
    StreamPodSandboxMetrics: serverStream(
      'StreamPodSandboxMetrics',
      context,
      async (_request, send) =>
        sendChunks(
          await encodedPodMetrics(s),
          (chunk) => send(encodeMetricsResponse(chunk)),
          ({ length }) => length,
        ),
      read,
    ),
    GetContainerEvents: serverStream(
      'GetContainerEvents',
      context,
      (request, send, signal) => getContainerEvents(s, request, send, signal),
      { ...read, endless: true },
    ),
  };
}

/** The image service. */
export function imageService(
  s: Services,
  context: CallContext,
  definition: Protos['imageService'],
): Readonly<Record<string, Rpc>> {
  const lists: Rpcs<ImageServiceDefinition> = {
    StreamImages: serverStream(
      'StreamImages',
      context,
      async (request, send) =>
        sendChunks((await listImages(s, request)).images ?? [], (chunk) => send({ images: chunk })),
      read,
    ),
  };
  return { ...implement(definition, s, context, imageHandlers), ...lists };
}

/** Wraps the handlers; what has none is UNIMPLEMENTED. */
function implement(
  definition: Readonly<Record<string, unknown>>,
  s: Services,
  context: CallContext,
  handlers: Readonly<Record<string, readonly [Handler, CallOptions]>>,
): Record<string, Rpc> {
  const rpcs = Object.keys(definition).map((name): [string, Rpc] => {
    const known = handlers[name];
    if (known === undefined) return [name, unimplemented(name)];
    const [handler, options] = known;
    return [name, unary(name, context, (request: never, signal) => handler(s, request, signal), options)];
  });
  return Object.fromEntries(rpcs);
}
