import type { Namespace, NamespaceType } from './types.ts';

/** Files of pinned namespaces to join. What is absent is shared with the node. */
export interface NamespacePaths {
  net?: string | undefined;
  uts?: string | undefined;
  ipc?: string | undefined;
}

/** A fresh PID namespace, the node's, or the one behind a path. */
export type PidNamespace = 'new' | 'node' | { path: string };

/** The list for a spec; the mount namespace is always a fresh one. */
export function specNamespaces(paths: NamespacePaths, pid: PidNamespace, ownCgroup: boolean): Namespace[] {
  const list: Namespace[] = [{ type: 'mount' }];
  const join = (type: NamespaceType, path: string | undefined): void => {
    if (path !== undefined) list.push({ type, path });
  };
  join('network', paths.net);
  join('uts', paths.uts);
  join('ipc', paths.ipc);
  if (pid === 'new') list.push({ type: 'pid' });
  else if (pid !== 'node') join('pid', pid.path);
  if (ownCgroup) list.push({ type: 'cgroup' });
  return list;
}
