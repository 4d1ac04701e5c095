import type { StopPodSandboxRequest__Output } from '../../proto/gen/runtime/v1/StopPodSandboxRequest.ts';
import type { StopPodSandboxResponse } from '../../proto/gen/runtime/v1/StopPodSandboxResponse.ts';
import { stopPodSandbox } from '../../src/sandbox/stop.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** StopPodSandbox: absent and stopped ones are done. */
export async function stopPodSandboxRpc(
  s: Services,
  request: StopPodSandboxRequest__Output,
): Promise<StopPodSandboxResponse> {
  await stopPodSandbox(s, requireId(request.pod_sandbox_id, 'pod_sandbox_id'));
  return {};
}
