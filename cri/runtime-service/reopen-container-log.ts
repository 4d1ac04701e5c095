import type { ReopenContainerLogRequest__Output } from '../../proto/gen/runtime/v1/ReopenContainerLogRequest.ts';
import type { ReopenContainerLogResponse } from '../../proto/gen/runtime/v1/ReopenContainerLogResponse.ts';
import { reopenContainerLog } from '../../src/container/reopen-log.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** ReopenContainerLog: see `src/container/reopen-log.ts`. */
export async function reopenContainerLogRpc(
  s: Services,
  request: ReopenContainerLogRequest__Output,
): Promise<ReopenContainerLogResponse> {
  await reopenContainerLog(s, requireId(request.container_id, 'container_id'));
  return {};
}
