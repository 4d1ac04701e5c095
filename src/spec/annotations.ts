import type { SandboxConfig } from '../sandbox/config.ts';

const PREFIX = 'io.kubernetes.cri.';

/**
 * Annotations by which shims and hooks tell a pod's sandbox from its containers. The names are
 * containerd's, since shims such as Kata's read exactly these.
 */
function common(sandboxId: string, config: SandboxConfig): Record<string, string> {
  return {
    [`${PREFIX}sandbox-id`]: sandboxId,
    [`${PREFIX}sandbox-name`]: config.metadata.name,
    [`${PREFIX}sandbox-namespace`]: config.metadata.namespace,
    [`${PREFIX}sandbox-uid`]: config.metadata.uid,
  };
}

/** The sandbox's; the sums of the pod's limits are there when the kubelet sent them. */
export function sandboxAnnotations(id: string, config: SandboxConfig): Record<string, string> {
  const r = config.resources;
  const sums: Record<string, string> = r
    ? {
        [`${PREFIX}sandbox-cpu-period`]: String(r.cpuPeriod ?? 0n),
        [`${PREFIX}sandbox-cpu-quota`]: String(r.cpuQuota ?? 0n),
        [`${PREFIX}sandbox-cpu-shares`]: String(r.cpuShares ?? 0n),
        [`${PREFIX}sandbox-memory`]: String(r.memoryLimitBytes ?? 0n),
      }
    : {};
  return {
    ...common(id, config),
    ...sums,
    [`${PREFIX}container-type`]: 'sandbox',
    [`${PREFIX}sandbox-log-directory`]: config.logDirectory,
  };
}

/** Those of a container; `imageName` is the image as the user wrote it, or as the kubelet sent it. */
export function containerAnnotations(
  sandboxId: string,
  config: SandboxConfig,
  containerName: string,
  imageName: string,
): Record<string, string> {
  return {
    ...common(sandboxId, config),
    [`${PREFIX}container-type`]: 'container',
    [`${PREFIX}container-name`]: containerName,
    [`${PREFIX}image-name`]: imageName,
  };
}
