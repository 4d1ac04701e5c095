import { join } from 'node:path';
import type { PodSandboxStatusRequest__Output } from '../../proto/gen/runtime/v1/PodSandboxStatusRequest.ts';
import type { PodSandboxStatusResponse } from '../../proto/gen/runtime/v1/PodSandboxStatusResponse.ts';
import { handlerConfig } from '../../src/config/handler.ts';
import { type ContainerRecord, containerState } from '../../src/container/record.ts';
import { notFound } from '../../src/errors.ts';
import { pinnedPaths } from '../../src/sandbox/namespaces.ts';
import { isReady, type SandboxRecord } from '../../src/sandbox/record.ts';
import type { Services } from '../../src/services.ts';
import { podSpec } from '../../src/spec/sandbox.ts';
import type { VmMemory } from '../../src/vm/memory.ts';
import type { EncodedList } from '../encoded-list.ts';
import { requireId } from '../ids.ts';
import { readSpec, runtimeInfo, verboseInfo } from '../info.ts';
import { toSandboxConfig } from '../mapping/config.ts';
import { toPodSandboxStatus } from '../mapping/sandbox.ts';

/** PodSandboxStatus. @param statuses answers without `info` */
export async function podSandboxStatus(
  s: Services,
  statuses: EncodedList<SandboxRecord>,
  request: PodSandboxStatusRequest__Output,
): Promise<PodSandboxStatusResponse | Buffer> {
  const sandbox = s.sandboxes.get(requireId(request.pod_sandbox_id, 'pod_sandbox_id'));
  if (sandbox?.phase !== 'live') throw notFound(`sandbox "${request.pod_sandbox_id}"`);
  if (!request.verbose) return statuses.one(sandbox);
  return { status: toPodSandboxStatus(sandbox), info: await info(s, sandbox) };
}

async function info(s: Services, r: SandboxRecord): Promise<Record<string, string>> {
  const paths = s.paths.sandbox(r.id);
  const ready = isReady(r);
  const hasPause = r.pause !== undefined;
  return verboseInfo({
    // Of a pod without a pause process one whose namespaces are the pod's.
    pid: ready ? ((r.pause ?? firstRunning(s, r.id)?.init)?.pid ?? 0) : 0,
    processStatus: ready ? 'running' : 'stopped',
    netNamespaceClosed: !ready,
    ...runtimeInfo(s, r.runtimeHandler),
    bundle: paths.dir,
    namespaces: paths.namespaces,
    cgroup: hasPause ? r.cgroup.path : r.cgroup.parent,
    config: toSandboxConfig({ ...r.config, ...r.resized }),
    runtimeSpec: hasPause ? await readSpec(join(paths.dir, 'config.json')) : describePod(s, r),
    cniResult: r.attachment?.result ?? null,
    ...(await machineInfo(s, r)),
  });
}

/** Of a pod in a virtual machine: what that takes of the node's memory, in bytes, and for what. */
async function machineInfo(s: Services, r: SandboxRecord): Promise<{ memory?: VmMemory | null }> {
  const handler = s.runtimes.get(r.runtimeHandler);
  if (handler?.memory === undefined) return {};
  return { memory: (await handler.memory(r.id).catch(() => undefined)) ?? null };
}

function firstRunning(s: Services, sandboxId: string): ContainerRecord | undefined {
  return [...s.containers.values()].find(
    (c) => c.sandboxId === sandboxId && c.phase === 'live' && containerState(c) === 'running',
  );
}

/** As other runtimes tell it of their pause containers: where the namespaces are, annotations, sysctls. */
function describePod(s: Services, { id, config, runtimeHandler }: SandboxRecord): unknown {
  const namespaces = pinnedPaths(s.paths.sandbox(id).namespaces, config);
  const allowedAnnotations = handlerConfig(s.config, runtimeHandler)?.allowed_annotations ?? [];
  return podSpec({ id, config, namespaces, allowedAnnotations });
}
