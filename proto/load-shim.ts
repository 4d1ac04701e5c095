import type { MessageTypeDefinition } from '@grpc/proto-loader';
import { loadSync } from '@grpc/proto-loader';
import type { TaskExit__Output } from './gen/containerd/events/TaskExit.ts';
import type { TaskOOM__Output } from './gen/containerd/events/TaskOOM.ts';
import type { Options } from './gen/containerd/runc/v1/Options.ts';
import type { EventsDefinition } from './gen/containerd/services/events/ttrpc/v1/Events.ts';
import type { TaskDefinition as TaskV2Definition } from './gen/containerd/task/v2/Task.ts';
import type { TaskDefinition as TaskV3Definition } from './gen/containerd/task/v3/Task.ts';
import type { Request, Request__Output } from './gen/ttrpc/Request.ts';
import type { Response, Response__Output } from './gen/ttrpc/Response.ts';
import { LOAD_OPTIONS, protoDirectory } from './load.ts';

/** What is spoken with a shim; methods and messages with their (de)serializers. */
export interface ShimProtos {
  /** `containerd.task.v2.Task` and `containerd.task.v3.Task`, whose messages are the same. */
  readonly taskV2: TaskV2Definition;
  readonly taskV3: TaskV3Definition;
  /** `containerd.services.events.ttrpc.v1.Events`, which the daemon serves. */
  readonly events: EventsDefinition;
  readonly request: MessageTypeDefinition<Request, Request__Output>;
  readonly response: MessageTypeDefinition<Response, Response__Output>;
  readonly runcOptions: MessageTypeDefinition<Options, unknown>;
  readonly taskExit: MessageTypeDefinition<unknown, TaskExit__Output>;
  readonly taskOom: MessageTypeDefinition<unknown, TaskOOM__Output>;
}

/**
 * Reads the .proto files of the shim API. It blocks for some tens of milliseconds, so a process that has
 * shims calls it once, when it starts. Throws when a file is missing or does not parse.
 */
export function loadShimProtos(): ShimProtos {
  const all = loadSync('shim.proto', { ...LOAD_OPTIONS, includeDirs: [protoDirectory()] });
  // proto-loader types every loaded package alike; the generated types say what these files hold.
  return {
    taskV2: all['containerd.task.v2.Task'],
    taskV3: all['containerd.task.v3.Task'],
    events: all['containerd.services.events.ttrpc.v1.Events'],
    request: all['ttrpc.Request'],
    response: all['ttrpc.Response'],
    runcOptions: all['containerd.runc.v1.Options'],
    taskExit: all['containerd.events.TaskExit'],
    taskOom: all['containerd.events.TaskOOM'],
  } as unknown as ShimProtos;
}
