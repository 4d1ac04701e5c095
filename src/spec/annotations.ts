import type { SandboxConfig } from '../sandbox/config.ts';
import { globMatcher } from '../util/globs.ts';

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
export function sandboxAnnotations(
  id: string,
  config: SandboxConfig,
  allowed: readonly string[],
): Record<string, string> {
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
    ...pick(config.annotations, allowed),
    ...common(id, config),
    ...sums,
    [`${PREFIX}container-type`]: 'sandbox',
    [`${PREFIX}sandbox-log-directory`]: config.logDirectory,
  };
}

/**
 * Those whose names the handler's configuration allows. OCI runtimes and their hooks act on annotations (runc
 * takes systemd properties from them), so what a pod says reaches none of them unasked.
 */
function pick(
  annotations: Readonly<Record<string, string>>,
  allowed: readonly string[],
): Record<string, string> {
  if (allowed.length === 0) return {};
  const isAllowed = globMatcher(allowed);
  return Object.fromEntries(Object.entries(annotations).filter(([name]) => isAllowed(name)));
}

/** Those of a container, the pod's allowed ones among them; `imageName` is the image as the user wrote it, or as the kubelet sent it. */
export function containerAnnotations(
  sandboxId: string,
  config: SandboxConfig,
  containerName: string,
  imageName: string,
  { annotations, allowed }: { annotations: Readonly<Record<string, string>>; allowed: readonly string[] },
): Record<string, string> {
  return {
    ...pick(config.annotations, allowed),
    ...pick(annotations, allowed),
    ...common(sandboxId, config),
    [`${PREFIX}container-type`]: 'container',
    [`${PREFIX}container-name`]: containerName,
    [`${PREFIX}image-name`]: imageName,
  };
}
