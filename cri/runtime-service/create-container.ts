import type { CreateContainerRequest__Output } from '../../proto/gen/runtime/v1/CreateContainerRequest.ts';
import type { CreateContainerResponse } from '../../proto/gen/runtime/v1/CreateContainerResponse.ts';
import { createContainer } from '../../src/container/create.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { fromContainerConfig } from '../mapping/container.ts';

/** CreateContainer: see `src/container/create.ts`. */
export async function createContainerRpc(
  s: Services,
  request: CreateContainerRequest__Output,
): Promise<CreateContainerResponse> {
  const config = fromContainerConfig(request.config);
  return {
    container_id: await createContainer(s, requireId(request.pod_sandbox_id, 'pod_sandbox_id'), config),
  };
}
