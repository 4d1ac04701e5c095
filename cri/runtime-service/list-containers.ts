import type { ListContainersRequest__Output } from '../../proto/gen/runtime/v1/ListContainersRequest.ts';
import type { ContainerRecord } from '../../src/container/record.ts';
import type { Services } from '../../src/services.ts';
import type { EncodedList } from '../encoded-list.ts';
import { filterContainers } from '../mapping/filters.ts';

/** ListContainers: from memory, as an encoded response. */
export function listContainers(
  s: Services,
  encoded: EncodedList<ContainerRecord>,
  request: ListContainersRequest__Output,
): Buffer {
  return encoded.of(filterContainers(s.containers.values(), request.filter));
}
