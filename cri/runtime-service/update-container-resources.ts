import type { UpdateContainerResourcesRequest__Output } from '../../proto/gen/runtime/v1/UpdateContainerResourcesRequest.ts';
import type { UpdateContainerResourcesResponse } from '../../proto/gen/runtime/v1/UpdateContainerResourcesResponse.ts';
import { updateContainerResources } from '../../src/container/update-resources.ts';
import { invalid } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { fromResources } from '../mapping/resources.ts';

/** UpdateContainerResources: synchronous; what is 0 stays as it is. */
export async function updateContainerResourcesRpc(
  s: Services,
  request: UpdateContainerResourcesRequest__Output,
): Promise<UpdateContainerResourcesResponse> {
  const id = requireId(request.container_id, 'container_id');
  if (request.linux === null) throw invalid('linux', 'is required');
  const score = BigInt(request.linux.oom_score_adj);
  await updateContainerResources(s, id, fromResources(request.linux), score === 0n ? undefined : score);
  return {};
}
