import { join } from 'node:path';
import type { Config } from '../config/schema.ts';
import type { RuntimeHandler } from '../runtime/handler.ts';
import type { NamespacePaths } from '../spec/namespaces.ts';
import { type NamespaceKind, namespaceInode, pinNamespaces, setHostname } from '../sys/namespaces.ts';
import { pinUserNamespace } from '../sys/user-namespace.ts';
import type { SandboxConfig } from './config.ts';

/**
 * Whether a pause container is made for a pod: as the first process of a PID namespace that its containers share,
 * because the handler cannot do without, or for cAdvisor, which finds a pod's network by the cgroup of a pause
 * container and its process. Every other namespace is held by its pin.
 */
export function needsPause(
  { cadvisor }: Pick<Config, 'cadvisor'>,
  { security }: SandboxConfig,
  runtime: Pick<RuntimeHandler, 'needsPause'> | undefined,
): boolean {
  return security.namespaces.pid === 'pod' || runtime?.needsPause === true || cadvisor.enabled;
}

/** The namespaces that a pod pins. */
function pinnedKinds({ security }: SandboxConfig): (NamespaceKind | 'user')[] {
  const { network, ipc, user } = security.namespaces;
  return [...(user.mode === 'pod' ? (['user'] as const) : []), ...ownKinds(network, ipc)];
}

function ownKinds(network: 'pod' | 'node', ipc: 'pod' | 'node'): NamespaceKind[] {
  return [
    ...(network === 'pod' ? (['net', 'uts'] as const) : []),
    ...(ipc === 'pod' ? (['ipc'] as const) : []),
  ];
}

/** The pins of a pod whose namespaces are pinned in `dir`, by kind. */
export function pinnedPaths(dir: string, config: SandboxConfig): NamespacePaths {
  return Object.fromEntries(pinnedKinds(config).map((kind) => [kind, join(dir, kind)]));
}

/** Makes and pins a pod's namespaces in `dir`, its host name among them. @throws as `pinNamespaces` and `pinUserNamespace` */
export async function pinSandboxNamespaces(
  dir: string,
  { security, hostname }: SandboxConfig,
): Promise<void> {
  const { network, ipc, user } = security.namespaces;
  const kinds = ownKinds(network, ipc);
  if (user.mode === 'pod') {
    await pinUserNamespace(dir, kinds, user, hostname);
  } else if (kinds.length > 0) {
    pinNamespaces(dir, kinds, () => {
      if (network === 'pod' && hostname !== '') setHostname(hostname);
    });
  }
}

/** Whether all that a pod pinned in `dir` is still there: not so when somebody has unmounted `/run`. */
export function arePinned(dir: string, config: SandboxConfig): boolean {
  return pinnedKinds(config).every((kind) => namespaceInode(join(dir, kind)) !== undefined);
}
