import type { ContainerStatusRequest__Output } from '../../proto/gen/runtime/v1/ContainerStatusRequest.ts';
import type { ContainerStatusResponse } from '../../proto/gen/runtime/v1/ContainerStatusResponse.ts';
import { live } from '../../src/container/start.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { toContainerStatus } from '../mapping/container.ts';

/** ContainerStatus. */
export async function containerStatus(
  s: Services,
  request: ContainerStatusRequest__Output,
): Promise<ContainerStatusResponse> {
  const container = live(s, requireId(request.container_id, 'container_id'));
  return {
    status: toContainerStatus(container),
    info: request.verbose
      ? {
          info: JSON.stringify({
            sandboxID: container.sandboxId,
            pid: container.init?.pid ?? 0,
            conmonPid: container.conmon?.pid ?? 0,
            bundle: s.paths.container(container.id).bundle,
            cgroup: container.cgroup.path,
          }),
        }
      : {},
  };
}
