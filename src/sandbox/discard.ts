import { rm } from 'node:fs/promises';
import { removeIfEmpty } from '../../cgroups/index.ts';
import { discardContainer } from '../container/discard.ts';
import { BerthError } from '../errors.ts';
import type { Services } from '../services.ts';
import { unmount } from '../sys/mount.ts';
import { unpinNamespaces } from '../sys/namespaces.ts';
import { type TeardownStep, tearDown } from '../util/teardown.ts';
import { needsPause } from './namespaces.ts';
import { failedAgain, type SandboxRecord } from './record.ts';

/**
 * Takes a sandbox and its containers down and forgets them. From the first moment it is not listed and
 * holds no name; what cannot be taken down now stays on the to-do list (records in phase `removing`),
 * which `Repairs` works off.
 */
export async function discardSandbox(s: Services, id: string): Promise<void> {
  const sandbox = s.sandboxes.update(id, { phase: 'removing' });
  await s.faults.at('RemovePodSandbox.recorded');
  const failures = await tearDown(s.faults, [
    { what: 'containers', point: 'RemovePodSandbox.containers', undo: () => discardContainersOf(s, id) },
    ...shutDownSteps(s, sandbox),
    { what: 'cgroup', point: 'RemovePodSandbox.cgroup', undo: () => s.cgroups.remove(sandbox.cgroup.path) },
    {
      what: 'files',
      point: 'RemovePodSandbox.files',
      undo: () => rm(s.paths.sandbox(id).dir, { recursive: true, force: true }),
    },
    // Last: another sandbox that is removed at the same time may leave its own to this one.
    {
      what: 'parent cgroups',
      point: 'RemovePodSandbox.parentCgroups',
      undo: () => removeMadeCgroups(s, id),
    },
  ]);
  if (failures.length === 0) {
    await s.faults.at('RemovePodSandbox.forget');
    s.exits.forget(id);
    s.sandboxes.delete(id);
    return;
  }
  const cleanup = failedAgain(sandbox.cleanup, failures);
  s.sandboxes.update(id, { cleanup });
  s.log.warn({ sandbox: id, ...cleanup }, 'a sandbox could not be taken down wholly; it will be tried again');
}

/** What ends a sandbox's life and gives back its address, for StopPodSandbox and for removal. */
export function shutDownSteps(s: Services, sandbox: SandboxRecord): TeardownStep[] {
  const { id } = sandbox;
  const paths = s.paths.sandbox(id);
  return [
    {
      what: 'CNI network',
      point: 'StopPodSandbox.network',
      undo: async () => {
        const attachment = s.sandboxes.require(id).attachment;
        if (attachment === undefined) return;
        await s.cni.del(attachment);
        s.sandboxes.update(id, { attachment: undefined });
      },
    },
    ...removePauseSteps(s, sandbox),
    { what: 'namespaces', point: 'StopPodSandbox.namespaces', undo: () => unpinNamespaces(paths.namespaces) },
    { what: '/dev/shm', point: 'StopPodSandbox.shm', undo: () => void unmount(paths.shm, { lazy: true }) },
  ];
}

/** A daemon may have been killed before it could put the process on record. */
function removePauseSteps(s: Services, sandbox: SandboxRecord): TeardownStep[] {
  const { id, config, cgroup, pause } = sandbox;
  const runtime = s.runtimes.get(sandbox.runtimeHandler);
  if (pause === undefined && !needsPause(s.config, config, runtime)) return [];
  const undo = async () => {
    // The kubelet stops before it removes; asking the OCI runtime again takes as long as the first time.
    if (s.sandboxes.require(id).pauseRemoved === true) return;
    await runtime?.shutDown?.(id);
    await s.cgroups.kill(cgroup.path, AbortSignal.timeout(5_000));
    await runtime?.delete(id);
    s.sandboxes.update(id, { pauseRemoved: true });
  };
  return [{ what: 'pause container', point: 'StopPodSandbox.pause', undo }];
}

async function discardContainersOf(s: Services, sandboxId: string): Promise<void> {
  const ids = [...s.containers.values()].filter((c) => c.sandboxId === sandboxId).map((c) => c.id);
  await Promise.all(ids.map((id) => s.locks.run(id, () => discardContainer(s, id))));
  const left = ids.filter((id) => s.containers.get(id) !== undefined);
  if (left.length > 0) throw new BerthError('internal', `${left.length} not gone yet`);
}

/**
 * Removes the parent cgroups that this sandbox caused to exist. One that a living sandbox is in, or below, is
 * that one's to remove from now on, and is not even tried: the OCI runtime may be about to make a cgroup in it.
 */
async function removeMadeCgroups(s: Services, id: string): Promise<void> {
  const seen = new Set<string>();
  // More come when another sandbox is removed at the same time.
  const next = () => (s.sandboxes.get(id)?.madeCgroups ?? []).filter((dir) => !seen.has(dir));
  for (let dirs = next(); dirs.length > 0; dirs = next()) {
    for (const dir of dirs) seen.add(dir);
    const unshared = dirs.filter((dir) => !bequeath(s, id, dir, isLiving));
    const inUse = new Set(await removeIfEmpty(unshared));
    for (const dir of unshared) {
      // A sandbox that began meanwhile found them there, and the OCI runtime makes them again.
      bequeath(s, id, dir, inUse.has(dir) ? () => true : isLiving);
    }
  }
}

const isLiving = ({ phase }: SandboxRecord) => phase !== 'removing';

/** Whether there is another sandbox to remove the cgroup directory from now on. */
function bequeath(s: Services, id: string, dir: string, suits: (heir: SandboxRecord) => boolean): boolean {
  const path = ancestors(s.sandboxes.require(id).cgroup.parent).find((parent) => dir.endsWith(parent));
  const heir = [...s.sandboxes.values()].find(
    (other) =>
      other.id !== id && suits(other) && path !== undefined && ancestors(other.cgroup.parent).includes(path),
  );
  if (heir === undefined) return false;
  s.sandboxes.update(heir.id, { madeCgroups: [...new Set([dir, ...heir.madeCgroups])] });
  return true;
}

/** Of `/a/b`: itself and `/a`. */
function ancestors(path: string): string[] {
  const found: string[] = [];
  for (let at = path; at.length > 1; at = at.slice(0, at.lastIndexOf('/'))) found.push(at);
  return found;
}
