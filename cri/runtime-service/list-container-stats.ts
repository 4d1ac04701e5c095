import type { ContainerStatsFilter__Output } from '../../proto/gen/runtime/v1/ContainerStatsFilter.ts';
import type { ListContainerStatsRequest__Output } from '../../proto/gen/runtime/v1/ListContainerStatsRequest.ts';
import type { ListContainerStatsResponse } from '../../proto/gen/runtime/v1/ListContainerStatsResponse.ts';
import { containerStats } from '../../src/container/stats.ts';
import type { Services } from '../../src/services.ts';
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
  const read = await Promise.all(
    filterContainers(s.containers.values(), filter).map((c) => containerStats(s, c.id)),
  );
  return read.filter((stats) => stats !== undefined).map((stats) => toContainerStats(stats, mountpoint));
}
