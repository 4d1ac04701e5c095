import type { ContainerRecord } from '../container/record.ts';
import type { SandboxRecord } from '../sandbox/record.ts';

/**
 * Finds the cgroup that is a pod's alone: the parent of its containers' cgroups, which the kubelet makes for
 * each pod. Parents that pods of several names share, and the default one, are nobody's alone. A pod's
 * earlier sandboxes have the same parent.
 *
 * @param sandboxes all there are
 * @returns a function from a sandbox to its pod's cgroup path, or undefined
 */
export function podCgroups(
  sandboxes: Iterable<SandboxRecord>,
): (sandbox: SandboxRecord) => string | undefined {
  const owners = new Map<string, string | undefined>();
  for (const sandbox of sandboxes) {
    const { parent } = sandbox.cgroup;
    const owner = ownerKey(sandbox);
    owners.set(parent, owners.has(parent) && owners.get(parent) !== owner ? undefined : owner);
  }
  return (sandbox) => {
    if (sandbox.config.cgroupParent === '' || sandbox.cgroup.parent === '/') return undefined;
    return owners.get(sandbox.cgroup.parent) === ownerKey(sandbox) ? sandbox.cgroup.parent : undefined;
  };
}

function ownerKey({ config: { metadata } }: SandboxRecord): string {
  return JSON.stringify([metadata.namespace, metadata.name, metadata.uid]);
}

/**
 * The cgroups of this host that a pod without one of its own has: what its containers use in a guest is counted with
 * the guest, which is in the sandbox's.
 *
 * @param containers that have not ended
 */
export function cgroupsOf(
  { pause, cgroup }: SandboxRecord,
  containers: readonly Pick<ContainerRecord, 'cgroup'>[],
  isInGuest: (path: string) => boolean,
): string[] {
  const here = containers.map((container) => container.cgroup.path).filter((path) => !isInGuest(path));
  return pause === undefined ? here : [cgroup.path, ...here];
}
