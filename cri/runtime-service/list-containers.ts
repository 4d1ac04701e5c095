import type { ListContainersRequest__Output } from '../../proto/gen/runtime/v1/ListContainersRequest.ts';
import type { ListContainersResponse } from '../../proto/gen/runtime/v1/ListContainersResponse.ts';
import type { Services } from '../../src/services.ts';
import { toContainer } from '../mapping/container.ts';
import { filterContainers } from '../mapping/filters.ts';

/** ListContainers: from memory. */
export async function listContainers(
  s: Services,
  request: ListContainersRequest__Output,
): Promise<ListContainersResponse> {
  return { containers: filterContainers(s.containers.values(), request.filter).map(toContainer) };
}
