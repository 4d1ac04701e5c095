import type { UpdateRuntimeConfigRequest__Output } from '../../proto/gen/runtime/v1/UpdateRuntimeConfigRequest.ts';
import type { UpdateRuntimeConfigResponse } from '../../proto/gen/runtime/v1/UpdateRuntimeConfigResponse.ts';
import type { Services } from '../../src/services.ts';

/** UpdateRuntimeConfig: the pod CIDR of the node; nothing of berth's depends on it. */
export async function updateRuntimeConfig(
  s: Services,
  request: UpdateRuntimeConfigRequest__Output,
): Promise<UpdateRuntimeConfigResponse> {
  s.log.debug({ config: request.runtime_config }, 'the pod CIDR is for CNI plugins to know');
  return {};
}
