import { rm } from 'node:fs/promises';
import { removeCgroup } from './cgroup.ts';
import type { VmDirectory } from './directory.ts';
import { refuseMounts, removeShare } from './share.ts';

/**
 * Removes what a machine had on the host, when all of its processes have ended. Repeatable.
 *
 * @throws BerthError `internal` when something is still mounted: nothing below it is removed then
 */
export async function removeMachine(directory: VmDirectory): Promise<void> {
  await removeShare(directory);
  await removeCgroup(directory);
  refuseMounts(directory.path);
  await rm(directory.path, { recursive: true, force: true });
}
