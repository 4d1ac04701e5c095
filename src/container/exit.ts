import { rm } from 'node:fs/promises';
import { readExit } from '../runtime/oci/conmon.ts';
import type { Services } from '../services.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { tearDown } from '../util/teardown.ts';
import { unmountImageVolumes } from './image-volumes.ts';
import type { ContainerExit, ContainerRecord } from './record.ts';
import { unmountRootfs } from './rootfs.ts';

/** The code of an end that nobody saw (Kubernetes shows it as Unknown). */
export const UNKNOWN_EXIT_CODE = 255;

/**
 * Watches a container's monitor. conmon writes the exit file last, after draining stdio and syncing the
 * log, and then ends; so its end is the one sign for both ways out: with an exit file the container has
 * exited, without one the monitor itself was killed.
 */
export function watchContainer(s: Services, id: string): void {
  s.exits.watch(id, s.containers.require(id).conmon, () => recordExit(s, id));
}

/** Records how a container ended and frees what only a running one needs. Repeatable. */
export async function recordExit(s: Services, id: string): Promise<void> {
  const container = s.containers.get(id);
  if (container === undefined || container.phase === 'removing') return;
  if (container.exit === undefined) {
    // The OOM counter goes with the cgroup, so it is read before anything is taken down.
    const oomKilled = (s.cgroups.oomKills(container.cgroup.path) ?? 0n) > 0n;
    const found = await readExit(s.paths.container(id).exit);
    s.containers.update(id, { exit: describeExit(container, found, oomKilled) });
  }
  await reapContainer(s, id);
}

function describeExit(
  container: ContainerRecord,
  found: { code: number; finishedAt: bigint } | undefined,
  oomKilled: boolean,
): ContainerExit {
  if (found === undefined || found.code < 0) {
    return {
      code: UNKNOWN_EXIT_CODE,
      finishedAt: nowNs(),
      reason: 'Unknown',
      message: 'the container ended unseen: its monitor was killed or the machine restarted',
    };
  }
  // The file's clock may be a tick behind; the kubelet wants finished_at not before started_at.
  const started = container.startedAt ?? container.createdAt;
  const finishedAt = latest(found.finishedAt, started);
  if (oomKilled && found.code !== 0)
    return { code: found.code, finishedAt, reason: 'OOMKilled', message: '' };
  return { code: found.code, finishedAt, reason: found.code === 0 ? 'Completed' : 'Error', message: '' };
}

function latest(a: bigint, b: bigint): bigint {
  return a < b ? b : a;
}

/**
 * Removes the processes (in a PID namespace that is shared, some outlive the first one), the runtime's
 * state, the cgroup and the mount of an exited container. What fails is tried again at removal.
 */
export async function reapContainer(s: Services, id: string): Promise<void> {
  const container = s.containers.require(id);
  if (container.reaped === true) return;
  const paths = s.paths.container(id);
  const runtime = s.runtimes.get(s.sandboxes.get(container.sandboxId)?.runtimeHandler ?? '');
  const failures = await tearDown([
    { what: 'processes', undo: () => s.cgroups.kill(container.cgroup.path, AbortSignal.timeout(10_000)) },
    { what: 'OCI runtime', undo: async () => runtime?.delete(id) },
    { what: 'cgroup', undo: () => s.cgroups.remove(container.cgroup.path) },
    { what: 'image volumes', undo: () => unmountImageVolumes(paths, container.imageVolumes) },
    { what: 'root file system', undo: () => unmountRootfs(paths) },
    { what: 'exit file', undo: () => rm(paths.exit, { force: true }) },
  ]);
  if (failures.length === 0) s.containers.update(id, { reaped: true });
  else s.log.warn({ container: id, failures }, 'an exited container could not be cleaned up wholly');
}
