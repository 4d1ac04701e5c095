import type { ContainerStatusRequest__Output } from '../../proto/gen/runtime/v1/ContainerStatusRequest.ts';
import type { ContainerStatusResponse } from '../../proto/gen/runtime/v1/ContainerStatusResponse.ts';
import type { ContainerRecord } from '../../src/container/record.ts';
import { live } from '../../src/container/start.ts';
import type { Services } from '../../src/services.ts';
import type { EncodedList } from '../encoded-list.ts';
import { requireId } from '../ids.ts';
import { readSpec, runtimeInfo, verboseInfo } from '../info.ts';
import { toContainerConfig } from '../mapping/config.ts';
import { toContainerStatus } from '../mapping/container.ts';

/** ContainerStatus. @param statuses answers without `info` */
export async function containerStatus(
  s: Services,
  statuses: EncodedList<ContainerRecord>,
  request: ContainerStatusRequest__Output,
): Promise<ContainerStatusResponse | Buffer> {
  const container = live(s, requireId(request.container_id, 'container_id'));
  if (!request.verbose) return statuses.one(container);
  return { status: toContainerStatus(container), info: await info(s, container) };
}

async function info(s: Services, c: ContainerRecord): Promise<Record<string, string>> {
  const paths = s.paths.container(c.id);
  const running = c.exit === undefined;
  return verboseInfo({
    sandboxID: c.sandboxId,
    pid: running ? (c.init?.pid ?? 0) : 0,
    conmonPid: running ? (c.conmon?.pid ?? 0) : 0,
    snapshotKey: c.id,
    snapshotter: 'overlayfs',
    ...runtimeInfo(s, s.sandboxes.get(c.sandboxId)?.runtimeHandler ?? ''),
    bundle: paths.bundle,
    cgroup: c.cgroup.path,
    createError: c.createError,
    config: toContainerConfig(c.config),
    runtimeSpec: await readSpec(paths.spec),
  });
}
