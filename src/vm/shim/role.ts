import type { JsonObject } from './oci.ts';

/** What one task of a shim is: a pod's sandbox, a container in one, or a container with a machine of its own. */
export type Role = { kind: 'sandbox' } | { kind: 'container'; sandboxId: string } | { kind: 'single' };

/** Annotations of containerd's CRI plugin, which berthd writes too, and of CRI-O. */
const TYPES = ['io.kubernetes.cri.container-type', 'io.kubernetes.cri-o.ContainerType'];
const SANDBOXES = ['io.kubernetes.cri.sandbox-id', 'io.kubernetes.cri-o.SandboxID'];

/** Without annotations of Kubernetes, as `ctr run` makes containers, each is alone. */
export function roleOf(annotations: JsonObject): Role {
  const type = first(annotations, TYPES);
  if (type === 'sandbox') return { kind: 'sandbox' };
  const sandboxId = first(annotations, SANDBOXES);
  return type === 'container' && sandboxId !== undefined
    ? { kind: 'container', sandboxId }
    : { kind: 'single' };
}

function first(annotations: JsonObject, names: readonly string[]): string | undefined {
  return names.map((name) => annotations[name]).find((value) => typeof value === 'string');
}
