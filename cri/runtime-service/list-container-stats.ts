import type { ContainerStatsFilter__Output } from '../../proto/gen/runtime/v1/ContainerStatsFilter.ts';
import type { ListContainerStatsRequest__Output } from '../../proto/gen/runtime/v1/ListContainerStatsRequest.ts';
import type { ListContainerStatsResponse } from '../../proto/gen/runtime/v1/ListContainerStatsResponse.ts';
import type { Services } from '../../src/services.ts';
import { listContainerStats as readAll } from '../../src/stats/container-stats.ts';
import { filterContainers } from '../mapping/filters.ts';
import { toContainerStats } from '../mapping/stats.ts';

/** ListContainerStats. */
export async function listContainerStats(
  s: Services,
  request: ListContainerStatsRequest__Output,
): Promise<ListContainerStatsResponse> {
  return { stats: await collectStats(s, request.filter) };
}

/** Stats of the containers that a filter lets through; one that ends while it is read is left out. */
export async function collectStats(s: Services, filter: ContainerStatsFilter__Output | null) {
  const { mountpoint } = s.images.fsInfo();
  const stats = await readAll(s, filterContainers(s.containers.values(), filter));
  return stats.map((one) => toContainerStats(one, mountpoint));
}
