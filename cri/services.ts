import type { ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { ContainerEventResponse } from '../proto/gen/runtime/v1/ContainerEventResponse.ts';
import type { GetEventsRequest__Output } from '../proto/gen/runtime/v1/GetEventsRequest.ts';
import type { ListContainersRequest__Output } from '../proto/gen/runtime/v1/ListContainersRequest.ts';
import type { ListPodSandboxRequest__Output } from '../proto/gen/runtime/v1/ListPodSandboxRequest.ts';
import type { StreamContainerStatsRequest__Output } from '../proto/gen/runtime/v1/StreamContainerStatsRequest.ts';
import type { StreamContainersRequest__Output } from '../proto/gen/runtime/v1/StreamContainersRequest.ts';
import type { StreamImagesRequest__Output } from '../proto/gen/runtime/v1/StreamImagesRequest.ts';
import type { StreamPodSandboxesRequest__Output } from '../proto/gen/runtime/v1/StreamPodSandboxesRequest.ts';
import type { StreamPodSandboxMetricsRequest__Output } from '../proto/gen/runtime/v1/StreamPodSandboxMetricsRequest.ts';
import type { StreamPodSandboxStatsRequest__Output } from '../proto/gen/runtime/v1/StreamPodSandboxStatsRequest.ts';
import type { ContainerRecord } from '../src/container/record.ts';
import type { SandboxRecord } from '../src/sandbox/record.ts';
import type { Services } from '../src/services.ts';
import { EncodedList } from './encoded-list.ts';
import { imageFsInfo } from './image-service/image-fs-info.ts';
import { imageStatus } from './image-service/image-status.ts';
import { listImages } from './image-service/list-images.ts';
import { pullImage } from './image-service/pull-image.ts';
import { removeImage } from './image-service/remove-image.ts';
import { toContainer } from './mapping/container.ts';
import { filterContainers, filterSandboxes } from './mapping/filters.ts';
import { encodeMetricsResponse } from './mapping/metrics.ts';
import { toPodSandbox } from './mapping/sandbox.ts';
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
import {
  type CallContext,
  type CallOptions,
  serverStream,
  unary,
  unimplemented,
  unimplementedStream,
} from './unary.ts';

/** A unary RPC's own part; the wrapper does the rest. */
// biome-ignore lint/suspicious/noExplicitAny: each handler has its own message types; the table forgets them.
type Handler = (s: Services, request: any, signal: AbortSignal) => Promise<unknown>;

const early: CallOptions = { early: true, quiet: true };
const quiet: CallOptions = { quiet: true };
const change: CallOptions = {};

const runtimeHandlers: Readonly<Record<string, readonly [Handler, CallOptions]>> = {
  Version: [version, early],
  Status: [status, early],
  RuntimeConfig: [runtimeConfig, early],
  UpdateRuntimeConfig: [updateRuntimeConfig, change],
  RunPodSandbox: [runPodSandboxRpc, change],
  StopPodSandbox: [stopPodSandboxRpc, change],
  RemovePodSandbox: [removePodSandboxRpc, change],
  PodSandboxStatus: [podSandboxStatus, quiet],
  CreateContainer: [createContainerRpc, change],
  StartContainer: [startContainerRpc, change],
  StopContainer: [stopContainerRpc, change],
  RemoveContainer: [removeContainerRpc, change],
  ContainerStatus: [containerStatus, quiet],
  ExecSync: [execSyncRpc, quiet],
  Exec: [execRpc, change],
  Attach: [attachRpc, change],
  PortForward: [portForwardRpc, change],
  ReopenContainerLog: [reopenContainerLogRpc, change],
  UpdateContainerResources: [updateContainerResourcesRpc, change],
  UpdatePodSandboxResources: [updatePodSandboxResourcesRpc, change],
  ContainerStats: [containerStatsRpc, quiet],
  ListContainerStats: [listContainerStats, quiet],
  PodSandboxStats: [podSandboxStatsRpc, quiet],
  ListPodSandboxStats: [listPodSandboxStats, quiet],
  ListMetricDescriptors: [listMetricDescriptors, early],
  ListPodSandboxMetrics: [listPodSandboxMetrics, quiet],
};

const imageHandlers: Readonly<Record<string, readonly [Handler, CallOptions]>> = {
  ListImages: [listImages, quiet],
  ImageStatus: [imageStatus, quiet],
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

/** The runtime service: the handlers above, the streamed lists, and UNIMPLEMENTED for all else. */
export function runtimeService(
  s: Services,
  context: CallContext,
  definition: ServiceDefinition,
): UntypedServiceImplementation {
  const sandboxes = new EncodedList<SandboxRecord>((record) =>
    serialize(definition, 'ListPodSandbox', { items: [toPodSandbox(record)] }),
  );
  const containers = new EncodedList<ContainerRecord>((record) =>
    serialize(definition, 'ListContainers', { containers: [toContainer(record)] }),
  );
  return {
    ...implement(definition, s, context, runtimeHandlers),
    ListPodSandbox: unary<ListPodSandboxRequest__Output, Buffer>(
      'ListPodSandbox',
      context,
      (request) => listPodSandbox(s, sandboxes, request),
      quiet,
    ),
    ListContainers: unary<ListContainersRequest__Output, Buffer>(
      'ListContainers',
      context,
      (request) => listContainers(s, containers, request),
      quiet,
    ),
    StreamPodSandboxes: serverStream<StreamPodSandboxesRequest__Output, unknown>(
      'StreamPodSandboxes',
      context,
      async (request, send) =>
        sendChunks(filterSandboxes(s.sandboxes.values(), request.filter).map(toPodSandbox), (chunk) =>
          send({ pod_sandboxes: chunk }),
        ),
      quiet,
    ),
    StreamContainers: serverStream<StreamContainersRequest__Output, unknown>(
      'StreamContainers',
      context,
      async (request, send) =>
        sendChunks(filterContainers(s.containers.values(), request.filter).map(toContainer), (chunk) =>
          send({ containers: chunk }),
        ),
      quiet,
    ),
    StreamContainerStats: serverStream<StreamContainerStatsRequest__Output, unknown>(
      'StreamContainerStats',
      context,
      async (request, send) =>
        sendChunks(await collectStats(s, request.filter), (chunk) => send({ container_stats: chunk })),
      quiet,
    ),
    StreamPodSandboxStats: serverStream<StreamPodSandboxStatsRequest__Output, unknown>(
      'StreamPodSandboxStats',
      context,
      async (request, send) =>
        sendChunks(await collectSandboxStats(s, request.filter), (chunk) =>
          send({ pod_sandbox_stats: chunk }),
        ),
      quiet,
    ),
    StreamPodSandboxMetrics: serverStream<StreamPodSandboxMetricsRequest__Output, Buffer>(
      'StreamPodSandboxMetrics',
      context,
      async (_request, send) =>
        sendChunks(
          await encodedPodMetrics(s),
          (chunk) => send(encodeMetricsResponse(chunk)),
          ({ length }) => length,
        ),
      quiet,
    ),
    GetContainerEvents: serverStream<GetEventsRequest__Output, ContainerEventResponse>(
      'GetContainerEvents',
      context,
      (request, send, signal) => getContainerEvents(s, request, send, signal),
      { quiet: true, endless: true },
    ),
  };
}

/** Methods of the runtime service that answer bytes. */
export const ENCODED_LISTS = [
  'ListPodSandbox',
  'ListContainers',
  'ListPodSandboxMetrics',
  'StreamPodSandboxMetrics',
] as const;

function serialize(
  definition: ServiceDefinition,
  name: (typeof ENCODED_LISTS)[number],
  response: object,
): Buffer {
  const method = definition[name];
  if (method === undefined) throw new Error(`the service has no ${name}`);
  return method.responseSerialize(response);
}

/** The image service. */
export function imageService(
  s: Services,
  context: CallContext,
  definition: ServiceDefinition,
): UntypedServiceImplementation {
  return {
    ...implement(definition, s, context, imageHandlers),
    StreamImages: serverStream<StreamImagesRequest__Output, unknown>(
      'StreamImages',
      context,
      async (request, send) =>
        sendChunks((await listImages(s, request)).images ?? [], (chunk) => send({ images: chunk })),
      quiet,
    ),
  };
}

function implement(
  definition: ServiceDefinition,
  s: Services,
  context: CallContext,
  handlers: Readonly<Record<string, readonly [Handler, CallOptions]>>,
): UntypedServiceImplementation {
  const all: UntypedServiceImplementation = {};
  for (const [name, { responseStream }] of Object.entries(definition)) {
    const known = handlers[name];
    if (known !== undefined) {
      const [handler, options] = known;
      all[name] = unary(name, context, (request, signal) => handler(s, request, signal), options);
    } else {
      all[name] = responseStream ? unimplementedStream(name) : unimplemented(name);
    }
  }
  return all;
}
