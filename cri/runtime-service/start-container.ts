import type { StartContainerRequest__Output } from '../../proto/gen/runtime/v1/StartContainerRequest.ts';
import type { StartContainerResponse } from '../../proto/gen/runtime/v1/StartContainerResponse.ts';
import { startContainer } from '../../src/container/start.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** StartContainer: see `src/container/start.ts`. */
export async function startContainerRpc(
  s: Services,
  request: StartContainerRequest__Output,
): Promise<StartContainerResponse> {
  await startContainer(s, requireId(request.container_id, 'container_id'));
  return {};
}
