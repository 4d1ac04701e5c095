import type { ContainerStatsRequest__Output } from '../../proto/gen/runtime/v1/ContainerStatsRequest.ts';
import type { ContainerStatsResponse } from '../../proto/gen/runtime/v1/ContainerStatsResponse.ts';
import { live } from '../../src/container/start.ts';
import { BerthError } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';
import { containerStats } from '../../src/stats/container-stats.ts';
import { requireId } from '../ids.ts';
import { toContainerStats } from '../mapping/stats.ts';

/** ContainerStats of one container. */
export async function containerStatsRpc(
  s: Services,
  request: ContainerStatsRequest__Output,
): Promise<ContainerStatsResponse> {
  const container = live(s, requireId(request.container_id, 'container_id'));
  const stats = await containerStats(s, container);
  if (stats === undefined) throw new BerthError('precondition', 'the container has ended');
  return { stats: toContainerStats(stats, s.images.fsInfo().mountpoint) };
}
