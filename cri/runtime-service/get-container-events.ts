import type { ContainerEventResponse } from '../../proto/gen/runtime/v1/ContainerEventResponse.ts';
import type { GetEventsRequest__Output } from '../../proto/gen/runtime/v1/GetEventsRequest.ts';
import type { Services } from '../../src/services.ts';
import { toContainerEvent } from '../mapping/events.ts';

/** GetContainerEvents: everything that happens from now on, until the caller leaves or berthd stops. */
export async function getContainerEvents(
  s: Services,
  _request: GetEventsRequest__Output,
  send: (message: ContainerEventResponse) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  for await (const event of s.events.subscribe(signal)) await send(toContainerEvent(event));
}
