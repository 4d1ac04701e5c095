import type { UpdatePodSandboxResourcesRequest__Output } from '../../proto/gen/runtime/v1/UpdatePodSandboxResourcesRequest.ts';
import type { UpdatePodSandboxResourcesResponse } from '../../proto/gen/runtime/v1/UpdatePodSandboxResourcesResponse.ts';
import { updateSandboxResources } from '../../src/sandbox/update-resources.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { fromResources } from '../mapping/resources.ts';

/** UpdatePodSandboxResources: what is 0 stays as it is. */
export async function updatePodSandboxResourcesRpc(
  s: Services,
  request: UpdatePodSandboxResourcesRequest__Output,
): Promise<UpdatePodSandboxResourcesResponse> {
  const id = requireId(request.pod_sandbox_id, 'pod_sandbox_id');
  await updateSandboxResources(s, id, {
    overhead: fromResources(request.overhead),
    resources: fromResources(request.resources),
  });
  return {};
}
