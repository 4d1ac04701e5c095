import type { StopContainerRequest__Output } from '../../proto/gen/runtime/v1/StopContainerRequest.ts';
import type { StopContainerResponse } from '../../proto/gen/runtime/v1/StopContainerResponse.ts';
import { stopContainer } from '../../src/container/stop.ts';
import { invalid } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** StopContainer: see `src/container/stop.ts`. */
export async function stopContainerRpc(
  s: Services,
  request: StopContainerRequest__Output,
): Promise<StopContainerResponse> {
  const id = requireId(request.container_id, 'container_id');
  const timeoutSeconds = Number(request.timeout);
  if (timeoutSeconds < 0) throw invalid('timeout', 'must not be negative');
  await stopContainer(s, id, timeoutSeconds);
  return {};
}
