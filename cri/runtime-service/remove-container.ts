import type { RemoveContainerRequest__Output } from '../../proto/gen/runtime/v1/RemoveContainerRequest.ts';
import type { RemoveContainerResponse } from '../../proto/gen/runtime/v1/RemoveContainerResponse.ts';
import { removeContainer } from '../../src/container/remove.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** RemoveContainer: see `src/container/remove.ts`. */
export async function removeContainerRpc(
  s: Services,
  request: RemoveContainerRequest__Output,
): Promise<RemoveContainerResponse> {
  await removeContainer(s, requireId(request.container_id, 'container_id'));
  return {};
}
