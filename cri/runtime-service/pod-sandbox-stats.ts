import type { PodSandboxStatsRequest__Output } from '../../proto/gen/runtime/v1/PodSandboxStatsRequest.ts';
import type { PodSandboxStatsResponse } from '../../proto/gen/runtime/v1/PodSandboxStatsResponse.ts';
import { BerthError, notFound } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';
import { sandboxStats } from '../../src/stats/sandbox-stats.ts';
import { requireId } from '../ids.ts';
import { toPodSandboxStats } from '../mapping/stats.ts';

/** PodSandboxStats of one pod. */
export async function podSandboxStatsRpc(
  s: Services,
  request: PodSandboxStatsRequest__Output,
): Promise<PodSandboxStatsResponse> {
  const sandbox = s.sandboxes.get(requireId(request.pod_sandbox_id, 'pod_sandbox_id'));
  if (sandbox?.phase !== 'live') throw notFound(`sandbox "${request.pod_sandbox_id}"`);
  const stats = await sandboxStats(s, sandbox);
  if (stats === undefined) throw new BerthError('precondition', 'the sandbox is not ready');
  return { stats: toPodSandboxStats(stats, s.images.fsInfo().mountpoint) };
}
