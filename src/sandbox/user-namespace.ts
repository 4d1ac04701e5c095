import type { NamespaceOptions } from './config.ts';

/** The node's ids of a user namespace's root; undefined for the node's own user namespace. */
export function hostRoot({
  mode,
  uids,
  gids,
}: NamespaceOptions['user']): { uid: number; gid: number } | undefined {
  if (mode !== 'pod') return undefined;
  const [uid, gid] = [uids, gids].map((ids) => ids.find((range) => range.containerId === 0)?.hostId);
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}
