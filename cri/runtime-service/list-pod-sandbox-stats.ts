import type { ListPodSandboxStatsRequest__Output } from '../../proto/gen/runtime/v1/ListPodSandboxStatsRequest.ts';
import type { ListPodSandboxStatsResponse } from '../../proto/gen/runtime/v1/ListPodSandboxStatsResponse.ts';
import type { PodSandboxStatsFilter__Output } from '../../proto/gen/runtime/v1/PodSandboxStatsFilter.ts';
import type { Services } from '../../src/services.ts';
import { listSandboxStats } from '../../src/stats/sandbox-stats.ts';
import { filterSandboxes } from '../mapping/filters.ts';
import { toPodSandboxStats } from '../mapping/stats.ts';

/** ListPodSandboxStats. */
export async function listPodSandboxStats(
  s: Services,
  request: ListPodSandboxStatsRequest__Output,
): Promise<ListPodSandboxStatsResponse> {
  return { stats: await collectSandboxStats(s, request.filter) };
}

/** Stats of the ready sandboxes that a filter lets through; one that stops while it is read is left out. */
export async function collectSandboxStats(s: Services, filter: PodSandboxStatsFilter__Output | null) {
  const { mountpoint } = s.images.fsInfo();
  const stats = await listSandboxStats(s, filterSandboxes(s.sandboxes.values(), filter));
  return stats.map((one) => toPodSandboxStats(one, mountpoint));
}
