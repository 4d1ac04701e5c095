import type { RuntimeConfigRequest__Output } from '../../proto/gen/runtime/v1/RuntimeConfigRequest.ts';
import type { RuntimeConfigResponse } from '../../proto/gen/runtime/v1/RuntimeConfigResponse.ts';
import type { Services } from '../../src/services.ts';

/** RuntimeConfig: the cgroup driver, which the kubelet then uses too. */
export async function runtimeConfig(
  s: Services,
  _request: RuntimeConfigRequest__Output,
): Promise<RuntimeConfigResponse> {
  return { linux: { cgroup_driver: s.cgroupDriver === 'systemd' ? 'SYSTEMD' : 'CGROUPFS' } };
}
