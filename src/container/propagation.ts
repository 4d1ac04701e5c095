import { BerthError, during, invalid, kindOf } from '../errors.ts';
import { runOk } from '../sys/exec.ts';
import { listMounts, type MountEntry, mountOf } from '../sys/mount.ts';
import type { Mount } from './config.ts';

/** As for the sources of all mounts; milliseconds. */
const RESOLVE_MS = 10_000;

/**
 * Refuses mounts whose propagation the node cannot give: what is not a shared mount on the node passes no
 * mount on, and the OCI runtime would say nothing.
 *
 * The paths must exist. They are the user's, so a program follows their links, never this process.
 *
 * @throws BerthError `invalid` naming the field, `deadline` when a source does not answer
 */
export async function checkPropagation(mounts: readonly Mount[]): Promise<void> {
  const propagating = [...mounts.entries()].filter(
    ([, m]) => m.propagation !== 'private' && m.image === undefined,
  );
  if (propagating.length === 0) return;
  const paths = await resolveSources(propagating.map(([, { hostPath }]) => hostPath));
  const entries = listMounts();
  for (const [i, [index, { propagation, hostPath }]] of propagating.entries()) {
    const on = mountOf(paths[i] ?? hostPath, entries);
    const missing = propagation === 'private' ? undefined : missingPropagation(propagation, on);
    if (missing === undefined || on === undefined) continue;
    throw invalid(
      `config.mounts[${index}].propagation`,
      `${hostPath} is on the mount ${on.mountpoint}, which is not ${missing}; "mount --make-rshared ${on.mountpoint}" on the node changes that`,
    );
  }
}

/**
 * Where sources of mounts are, with links followed.
 *
 * @throws BerthError `deadline` when one does not answer
 */
export async function resolveSources(paths: readonly string[]): Promise<string[]> {
  const limits = { timeoutMs: RESOLVE_MS, maxOutput: 1024 * 1024 };
  try {
    const { stdout } = await runOk(['realpath', '-z', '-e', '--', ...paths], limits);
    return stdout.toString().split('\0');
  } catch (e: unknown) {
    if (kindOf(e) === 'deadline') {
      throw new BerthError('deadline', `mount sources do not answer: ${paths.join(', ')}`, { cause: e });
    }
    throw during('mount sources', e);
  }
}

/** What a mount would have to be: a peer group to pass mounts both ways, or at least a master to take them from. */
function missingPropagation(
  wanted: 'hostToContainer' | 'bidirectional',
  on: MountEntry | undefined,
): string | undefined {
  const has = (kind: string): boolean => on?.propagation.some((p) => p.startsWith(`${kind}:`)) ?? false;
  if (has('shared')) return undefined;
  if (wanted === 'bidirectional') return 'shared';
  return has('master') ? undefined : 'shared or a slave';
}
