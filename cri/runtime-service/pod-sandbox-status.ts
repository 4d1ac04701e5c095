import type { PodSandboxStatusRequest__Output } from '../../proto/gen/runtime/v1/PodSandboxStatusRequest.ts';
import type { PodSandboxStatusResponse } from '../../proto/gen/runtime/v1/PodSandboxStatusResponse.ts';
import { notFound } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { toPodSandboxStatus } from '../mapping/sandbox.ts';

/** PodSandboxStatus. */
export async function podSandboxStatus(
  s: Services,
  request: PodSandboxStatusRequest__Output,
): Promise<PodSandboxStatusResponse> {
  const sandbox = s.sandboxes.get(requireId(request.pod_sandbox_id, 'pod_sandbox_id'));
  if (sandbox?.phase !== 'live') throw notFound(`sandbox "${request.pod_sandbox_id}"`);
  return {
    status: toPodSandboxStatus(sandbox),
    info: request.verbose
      ? {
          info: JSON.stringify({
            pid: sandbox.pause?.pid ?? 0,
            namespaces: s.paths.sandbox(sandbox.id).namespaces,
            cgroup: sandbox.cgroup.path,
            cniResult: sandbox.attachment?.result,
          }),
        }
      : {},
  };
}
