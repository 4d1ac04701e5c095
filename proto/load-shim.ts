import { Codec, type Message, type Service } from './codec.ts';
import type { GuestDefinition } from './gen/berth/vm/v1/Guest.ts';
import type { TaskExit__Output } from './gen/containerd/events/TaskExit.ts';
import type { TaskOOM__Output } from './gen/containerd/events/TaskOOM.ts';
import type { Options } from './gen/containerd/runc/v1/Options.ts';
import type { ProcessDetails__Output } from './gen/containerd/runc/v1/ProcessDetails.ts';
import type { EventsDefinition } from './gen/containerd/services/events/ttrpc/v1/Events.ts';
import type { TaskDefinition as TaskV2Definition } from './gen/containerd/task/v2/Task.ts';
import type { TaskDefinition as TaskV3Definition } from './gen/containerd/task/v3/Task.ts';
import type { Any__Output } from './gen/google/protobuf/Any.ts';
import type { Metrics__Output as MetricsV1 } from './gen/io/containerd/cgroups/v1/Metrics.ts';
import type { Metrics__Output as MetricsV2 } from './gen/io/containerd/cgroups/v2/Metrics.ts';
import type { Request, Request__Output } from './gen/ttrpc/Request.ts';
import type { Response, Response__Output } from './gen/ttrpc/Response.ts';

const TASK_EVENTS = [
  'TaskCreate',
  'TaskStart',
  'TaskExit',
  'TaskDelete',
  'TaskExecAdded',
  'TaskExecStarted',
  'TaskPaused',
  'TaskResumed',
  'TaskOOM',
] as const;
export type TaskEventName = (typeof TASK_EVENTS)[number];

/** What is spoken with a shim; methods and messages with their (de)serializers. */
export interface ShimProtos {
  /** `containerd.task.v2.Task` and `containerd.task.v3.Task`, whose messages are the same. */
  readonly taskV2: Service<TaskV2Definition>;
  readonly taskV3: Service<TaskV3Definition>;
  /** `containerd.services.events.ttrpc.v1.Events`, which the daemon serves. */
  readonly events: Service<EventsDefinition>;
  /** `berth.vm.v1.Guest`, which only berth's own shim serves. */
  readonly guest: Service<GuestDefinition>;
  readonly request: Message<Request, Request__Output>;
  readonly response: Message<Response, Response__Output>;
  readonly runcOptions: Message<Options, unknown>;
  readonly processDetails: Message<object, ProcessDetails__Output>;
  readonly taskExit: Message<unknown, TaskExit__Output>;
  readonly taskOom: Message<unknown, TaskOOM__Output>;
  /** All events of tasks, by the names of their messages. */
  readonly taskEvents: Readonly<Record<TaskEventName, Message<object, unknown>>>;
  readonly any: Message<unknown, Any__Output>;
  /** What Stats answers. */
  readonly cgroupV1: Message<object, MetricsV1>;
  readonly cgroupV2: Message<object, MetricsV2>;
}

/** Reads what `npm run gen` made of the shim API's .proto files. Throws when it is missing. */
export function loadShimProtos(): ShimProtos {
  const codec = new Codec('shim.json');
  // The generated types say what these files hold.
  return {
    taskV2: codec.service('containerd.task.v2.Task'),
    taskV3: codec.service('containerd.task.v3.Task'),
    events: codec.service('containerd.services.events.ttrpc.v1.Events'),
    guest: codec.service('berth.vm.v1.Guest'),
    request: codec.message('ttrpc.Request'),
    response: codec.message('ttrpc.Response'),
    runcOptions: codec.message('containerd.runc.v1.Options'),
    processDetails: codec.message('containerd.runc.v1.ProcessDetails'),
    taskExit: codec.message('containerd.events.TaskExit'),
    taskOom: codec.message('containerd.events.TaskOOM'),
    taskEvents: Object.fromEntries(
      TASK_EVENTS.map((name) => [name, codec.message(`containerd.events.${name}`)]),
    ),
    any: codec.message('google.protobuf.Any'),
    cgroupV1: codec.message('io.containerd.cgroups.v1.Metrics'),
    cgroupV2: codec.message('io.containerd.cgroups.v2.Metrics'),
  } as unknown as ShimProtos;
}
