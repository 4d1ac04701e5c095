import type { RunPodSandboxRequest__Output } from '../../proto/gen/runtime/v1/RunPodSandboxRequest.ts';
import type { RunPodSandboxResponse } from '../../proto/gen/runtime/v1/RunPodSandboxResponse.ts';
import { runPodSandbox } from '../../src/sandbox/run.ts';
import type { Services } from '../../src/services.ts';
import { fromSandboxConfig } from '../mapping/sandbox.ts';

/** RunPodSandbox: see `src/sandbox/run.ts`. */
export async function runPodSandboxRpc(
  s: Services,
  request: RunPodSandboxRequest__Output,
): Promise<RunPodSandboxResponse> {
  const config = fromSandboxConfig(request.config);
  return { pod_sandbox_id: await runPodSandbox(s, config, request.runtime_handler) };
}
