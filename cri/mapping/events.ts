import type { ContainerEventResponse } from '../../proto/gen/runtime/v1/ContainerEventResponse.ts';
import type { ContainerEvent } from '../../src/events/events.ts';
import { toContainerStatus } from './container.ts';
import { toPodSandboxStatus } from './sandbox.ts';

const types = {
  created: 'CONTAINER_CREATED_EVENT',
  started: 'CONTAINER_STARTED_EVENT',
  stopped: 'CONTAINER_STOPPED_EVENT',
  deleted: 'CONTAINER_DELETED_EVENT',
} as const;

/** The kubelet takes the statuses for the pod's state at `created_at`, and ignores events without them. */
export function toContainerEvent(event: ContainerEvent): ContainerEventResponse {
  return {
    container_id: event.id,
    container_event_type: types[event.type],
    created_at: String(event.at),
    pod_sandbox_status: toPodSandboxStatus(event.sandbox),
    containers_statuses: event.containers.map(toContainerStatus),
  };
}
