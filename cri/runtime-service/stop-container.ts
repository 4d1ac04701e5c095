import type { StopContainerRequest__Output } from '../../proto/gen/runtime/v1/StopContainerRequest.ts';
import type { StopContainerResponse } from '../../proto/gen/runtime/v1/StopContainerResponse.ts';
import { stopContainer } from '../../src/container/stop.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** StopContainer: see `src/container/stop.ts`. */
export async function stopContainerRpc(
  s: Services,
  request: StopContainerRequest__Output,
): Promise<StopContainerResponse> {
  await stopContainer(s, requireId(request.container_id, 'container_id'), Number(request.timeout));
  return {};
}
