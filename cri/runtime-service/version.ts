import type { VersionRequest__Output } from '../../proto/gen/runtime/v1/VersionRequest.ts';
import type { VersionResponse } from '../../proto/gen/runtime/v1/VersionResponse.ts';
import type { Services } from '../../src/services.ts';
import { BERTH_VERSION } from '../../src/version.ts';

/** Version: who answers. */
export async function version(_s: Services, _request: VersionRequest__Output): Promise<VersionResponse> {
  return {
    // The kubelet ends itself when this is anything else (kubeRuntimeAPIVersion).
    version: '0.1.0',
    runtime_name: 'berth',
    runtime_version: BERTH_VERSION,
    runtime_api_version: 'v1',
  };
}
