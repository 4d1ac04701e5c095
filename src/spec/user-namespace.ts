import { invalid } from '../errors.ts';
import type { IdMapping, NamespaceOptions } from '../sandbox/config.ts';
import type { ProcessUser } from './types.ts';

/** The highest id; 2^32 - 1 means "none" (chown(2)). */
const MAX_KERNEL_ID = 0xffff_fffe;

/**
 * Refuses what the kernel would refuse without a word on the reason, and what contradicts itself.
 *
 * @throws BerthError `invalid` naming the field below `field`
 */
export function checkUserNamespace(n: NamespaceOptions, field: string): void {
  const { mode, uids, gids } = n.user;
  if (mode === 'node') {
    if (uids.length + gids.length > 0) throw invalid(field, 'has mappings, which are for mode POD');
    return;
  }
  const shared = (['network', 'ipc', 'pid'] as const).filter((kind) => n[kind] === 'node');
  if (shared.length > 0) {
    throw invalid(field, `excludes the node's namespaces, which the pod asks for: ${shared.join(', ')}`);
  }
  checkMappings(uids, `${field}.uids`);
  checkMappings(gids, `${field}.gids`);
}

/**
 * One mapping, as the kubelet makes and as containerd and the conformance tests demand.
 *
 * @throws BerthError `invalid`
 */
export function checkMappings(ids: readonly IdMapping[], field: string): void {
  const [only, ...more] = ids;
  if (only === undefined || more.length > 0) throw invalid(field, `must have one mapping; has ${ids.length}`);
  const { hostId, containerId, length } = only;
  if (containerId !== 0) throw invalid(`${field}[0].container_id`, 'must be 0: the container needs a root');
  if (length === 0) throw invalid(`${field}[0].length`, 'must not be 0');
  if (hostId + length - 1 > MAX_KERNEL_ID) {
    throw invalid(`${field}[0].length`, `leads beyond the highest id, ${MAX_KERNEL_ID}`);
  }
}

/** Whether a user namespace has an id, as seen from inside. */
export function isMapped(id: number, ids: readonly IdMapping[]): boolean {
  return ids.some(({ containerId, length }) => id >= containerId && id < containerId + length);
}

/** @throws BerthError `invalid`: a process cannot have ids that its user namespace does not have */
export function checkMapped(
  { uid, gid, additionalGids }: ProcessUser,
  { mode, uids, gids }: NamespaceOptions['user'],
): void {
  if (mode === 'node') return;
  const field = 'config.linux.security_context.namespace_options.userns_options';
  if (!isMapped(uid, uids)) throw invalid(`${field}.uids`, `do not map the user ${uid} of the process`);
  const group = [gid, ...additionalGids].find((id) => !isMapped(id, gids));
  if (group !== undefined) throw invalid(`${field}.gids`, `do not map the group ${group} of the process`);
}
