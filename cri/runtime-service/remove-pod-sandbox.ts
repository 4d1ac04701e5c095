import type { RemovePodSandboxRequest__Output } from '../../proto/gen/runtime/v1/RemovePodSandboxRequest.ts';
import type { RemovePodSandboxResponse } from '../../proto/gen/runtime/v1/RemovePodSandboxResponse.ts';
import { removePodSandbox } from '../../src/sandbox/remove.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** RemovePodSandbox: absent is done. */
export async function removePodSandboxRpc(
  s: Services,
  request: RemovePodSandboxRequest__Output,
): Promise<RemovePodSandboxResponse> {
  await removePodSandbox(s, requireId(request.pod_sandbox_id, 'pod_sandbox_id'));
  return {};
}
