import type { Envelope__Output } from '../../proto/gen/containerd/types/Envelope.ts';
import type { ShimProtos } from '../../proto/load-shim.ts';
import { handle, TtrpcServer } from './ttrpc/server.ts';

/** What a shim tells unasked; all else it tells is left out. */
export type ShimEvent =
  | { kind: 'oom'; container: string }
  | { kind: 'exit'; container: string; process: string; pid: number; code: number };

/** Serves the socket to which shims forward their events (`TTRPC_ADDRESS`). */
export async function listenForEvents(
  path: string,
  protos: ShimProtos,
  listener: (event: ShimEvent) => void,
): Promise<TtrpcServer> {
  const { Forward } = protos.events;
  return TtrpcServer.listen(path, protos, {
    [Forward.path]: handle(Forward, async ({ envelope }) => {
      const event = envelope === null ? undefined : decodeEvent(envelope, protos);
      if (event !== undefined) listener(event);
      return {};
    }),
  });
}

/** The event in an envelope, by the type of the message in it. */
function decodeEvent(
  { event }: Pick<Envelope__Output, 'event'>,
  { taskExit, taskOom }: Pick<ShimProtos, 'taskExit' | 'taskOom'>,
): ShimEvent | undefined {
  if (event === null) return undefined;
  // A type URL may have a host before its last slash.
  switch (event.type_url.slice(event.type_url.lastIndexOf('/') + 1)) {
    case 'containerd.events.TaskOOM':
      return { kind: 'oom', container: taskOom.deserialize(event.value).container_id };
    case 'containerd.events.TaskExit': {
      const {
        container_id: container,
        id: process,
        pid,
        exit_status: code,
      } = taskExit.deserialize(event.value);
      return { kind: 'exit', container, process, pid, code };
    }
    default:
      return undefined;
  }
}
