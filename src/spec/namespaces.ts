import type { IdMapping, NamespaceOptions } from '../sandbox/config.ts';
import type { Namespace, NamespaceType, SpecIdMapping } from './types.ts';

/** Files of pinned namespaces to join. What is absent is shared with the node. */
export interface NamespacePaths {
  net?: string | undefined;
  uts?: string | undefined;
  ipc?: string | undefined;
  /** Owns the others; absent: the node's. */
  user?: string | undefined;
}

/** A fresh PID namespace, the node's, or the one behind a path. */
export type PidNamespace = 'new' | 'node' | { path: string };

/** The list for a spec; the mount namespace is always a fresh one. */
export function specNamespaces(paths: NamespacePaths, pid: PidNamespace, ownCgroup: boolean): Namespace[] {
  const list: Namespace[] = [{ type: 'mount' }];
  const join = (type: NamespaceType, path: string | undefined): void => {
    if (path !== undefined) list.push({ type, path });
  };
  join('user', paths.user);
  join('network', paths.net);
  join('uts', paths.uts);
  join('ipc', paths.ipc);
  if (pid === 'new') list.push({ type: 'pid' });
  else if (pid !== 'node') join('pid', pid.path);
  if (ownCgroup) list.push({ type: 'cgroup' });
  return list;
}

/** The ids of a pod's user namespace, in the specification's terms; nothing for the node's. */
export function userMappings({ mode, uids, gids }: NamespaceOptions['user']): {
  uidMappings?: SpecIdMapping[];
  gidMappings?: SpecIdMapping[];
} {
  return mode === 'pod' ? { uidMappings: uids.map(specMapping), gidMappings: gids.map(specMapping) } : {};
}

export function specMapping({ containerId, hostId, length }: IdMapping): SpecIdMapping {
  return { containerID: containerId, hostID: hostId, size: length };
}
