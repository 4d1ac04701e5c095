import { credentials, Client as GrpcClient, Metadata, type ServiceError } from '@grpc/grpc-js';
import type { ContainerEventResponse__Output } from '../../proto/gen/runtime/v1/ContainerEventResponse.ts';
import { loadProtos } from '../../proto/load.ts';
import type { Berthd } from './berthd.ts';

/** A listener to a daemon's container events; resolves once the daemon has it. */
export async function listenTo({ endpoint }: Pick<Berthd, 'endpoint'>) {
  const { GetContainerEvents: method } = loadProtos().runtimeService;
  const client = new GrpcClient(endpoint.replace('//', ''), credentials.createInsecure());
  const call = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    {},
    new Metadata(),
  );
  const heard: ContainerEventResponse__Output[] = [];
  const ended = new Promise<ServiceError | undefined>((resolve) => {
    call.on('error', (e: ServiceError) => resolve(e));
    call.on('end', () => resolve(undefined));
  });
  await new Promise<void>((resolve, reject) => {
    call.once('metadata', () => resolve());
    call.once('error', reject);
  });
  return {
    heard,
    ended,
    /** Takes what comes from now on; before, nothing is read. */
    read: () => call.on('data', (event: ContainerEventResponse__Output) => heard.push(event)),
    leave: () => {
      call.cancel();
      client.close();
    },
  };
}

/** Events in short: `<id> stopped`. */
export const words = (events: ContainerEventResponse__Output[]) =>
  events.map(
    ({ container_id, container_event_type: type }) =>
      `${container_id} ${/CONTAINER_(\w+)_EVENT/.exec(String(type))?.[1]?.toLowerCase()}`,
  );
