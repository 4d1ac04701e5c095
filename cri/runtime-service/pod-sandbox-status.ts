import { join } from 'node:path';
import type { PodSandboxStatusRequest__Output } from '../../proto/gen/runtime/v1/PodSandboxStatusRequest.ts';
import type { PodSandboxStatusResponse } from '../../proto/gen/runtime/v1/PodSandboxStatusResponse.ts';
import { notFound } from '../../src/errors.ts';
import { isReady, type SandboxRecord } from '../../src/sandbox/record.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { readSpec, runtimeInfo, verboseInfo } from '../info.ts';
import { toSandboxConfig } from '../mapping/config.ts';
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
    info: request.verbose ? await info(s, sandbox) : {},
  };
}

async function info(s: Services, r: SandboxRecord): Promise<Record<string, string>> {
  const paths = s.paths.sandbox(r.id);
  const ready = isReady(r);
  return verboseInfo({
    pid: ready ? (r.pause?.pid ?? 0) : 0,
    processStatus: ready ? 'running' : 'stopped',
    netNamespaceClosed: !ready,
    ...runtimeInfo(s, r.runtimeHandler),
    bundle: paths.dir,
    namespaces: paths.namespaces,
    cgroup: r.cgroup.path,
    config: toSandboxConfig({ ...r.config, ...r.resized }),
    runtimeSpec: await readSpec(join(paths.dir, 'config.json')),
    cniResult: r.attachment?.result ?? null,
  });
}
