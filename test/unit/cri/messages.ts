import type { Method } from '../../../proto/codec.ts';
import { loadProtos } from '../../../proto/load.ts';

const { runtimeService, imageService } = loadProtos();

type Requests = typeof runtimeService;
type RequestOf<K extends keyof Requests> = Requests[K] extends {
  requestSerialize: (value: infer T) => Buffer;
}
  ? T
  : never;
type Received<K extends keyof Requests> = Requests[K] extends {
  requestDeserialize: (bytes: Buffer) => infer T;
}
  ? T
  : never;

/** A request as a handler gets it when a client has sent this one. */
export function received<K extends 'RunPodSandbox' | 'CreateContainer' | 'ListContainers' | 'ListPodSandbox'>(
  method: K,
  request: RequestOf<K>,
): Received<K> {
  const definition = runtimeService[method];
  // TypeScript does not follow the method's types through the key.
  const { requestSerialize, requestDeserialize } = definition as Method;
  return requestDeserialize(requestSerialize(request as object)) as Received<K>;
}

/** An answer as a client gets it when a handler has given this one. */
export const answered = {
  containerStatus: roundTrip(runtimeService.ContainerStatus),
  podSandboxStatus: roundTrip(runtimeService.PodSandboxStatus),
  listContainers: roundTrip(runtimeService.ListContainers),
  listPodSandbox: roundTrip(runtimeService.ListPodSandbox),
  containerStats: roundTrip(runtimeService.ContainerStats),
  podSandboxStats: roundTrip(runtimeService.PodSandboxStats),
  imageStatus: roundTrip(imageService.ImageStatus),
  imageFsInfo: roundTrip(imageService.ImageFsInfo),
};

function roundTrip<I, O>(method: {
  responseSerialize: (value: I) => Buffer;
  responseDeserialize: (bytes: Buffer) => O;
}): (value: I) => O {
  return (value) => method.responseDeserialize(method.responseSerialize(value));
}

/**
 * Paths of the fields that have protobuf's default value: on a message meant to have all fields, those that
 * were forgotten. Members of a `oneof` and what `except` matches are left out.
 */
export function unsetFields(message: unknown, except: RegExp = /^$/, path = ''): string[] {
  if (except.test(path)) return [];
  if (Buffer.isBuffer(message)) return message.length === 0 ? [path] : [];
  if (Array.isArray(message)) {
    return message.length === 0 ? [path] : message.flatMap((m, i) => unsetFields(m, except, `${path}[${i}]`));
  }
  if (typeof message === 'object' && message !== null) {
    const entries = Object.entries(message);
    return entries.length === 0
      ? [path]
      : entries.flatMap(([key, value]) => unsetFields(value, except, path === '' ? key : `${path}.${key}`));
  }
  return [null, undefined, '', '0', 0, false].includes(message as null) ? [path] : [];
}
