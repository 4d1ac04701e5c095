import { rm } from 'node:fs/promises';
import { readExit } from '../runtime/oci/conmon.ts';
import { failedAgain } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { tearDown } from '../util/teardown.ts';
import { unmountImageVolumes } from './image-volumes.ts';
import { wasOomKilled } from './oom.ts';
import type { ContainerExit, ContainerRecord } from './record.ts';
import { unmountRootfs } from './rootfs.ts';

/** The code of an end that nobody saw (Kubernetes shows it as Unknown). */
export const UNKNOWN_EXIT_CODE = 255;
/** Docker's and containerd's code for a container whose command could not be started. */
const START_ERROR_CODE = 128;

/** The end, now, of a container that never began. */
export function startError(message: string): ContainerExit {
  return { code: START_ERROR_CODE, finishedAt: nowNs(), reason: 'StartError', message };
}

/** Watches for the end of a container, which is on record as soon as its handler has told all about it. */
export function watchContainer(s: Services, id: string): void {
  const container = s.containers.require(id);
  const runtime = s.runtimes.get(s.sandboxes.require(container.sandboxId).runtimeHandler);
  const end = runtime === undefined ? container.conmon : runtime.ended(container);
  s.exits.watch(id, end, () => recordExit(s, id));
}

/** Records how a container ended and frees what only a running one needs. Repeatable. */
export async function recordExit(s: Services, id: string): Promise<void> {
  await s.faults.at('ContainerExit.seen');
  await noteExit(s, id);
  await s.faults.at('ContainerExit.recorded');
  await s.locks.run(id, async () => {
    if (s.containers.get(id)?.phase === 'live') await reapContainer(s, id);
  });
}

/** Only the record: how a container ended. Repeatable. */
export async function noteExit(s: Services, id: string): Promise<void> {
  const ended = s.containers.get(id);
  if (ended === undefined || ended.exit !== undefined) return;
  // The OOM counter goes with the cgroup, so it is read before anything is taken down.
  const oomKilled = await wasOomKilled(s, ended);
  const found = await readExit(s.paths.container(id).exit);
  const container = s.containers.get(id);
  if (container?.phase !== 'live' || container.exit !== undefined) return;
  s.containers.update(id, { exit: describeExit(container, found, oomKilled) });
}

function describeExit(
  container: ContainerRecord,
  found: { code: number; finishedAt: bigint } | undefined,
  oomKilled: boolean,
): ContainerExit {
  // Stopped before anybody asked for its start, so its end is not known from there.
  if (container.createError !== undefined) return startError(container.createError);
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
 * state, the cgroup and the mount of an exited container. What fails is tried again (`Repairs`).
 */
export async function reapContainer(s: Services, id: string): Promise<void> {
  const container = s.containers.require(id);
  if (container.reaped === true) return;
  const paths = s.paths.container(id);
  const runtime = s.runtimes.get(s.sandboxes.get(container.sandboxId)?.runtimeHandler ?? '');
  const failures = await tearDown(s.faults, [
    {
      what: 'processes',
      point: 'ContainerExit.processes',
      undo: () => s.cgroups.kill(container.cgroup.path, AbortSignal.timeout(5_000)),
    },
    { what: 'OCI runtime', point: 'ContainerExit.runtime', undo: async () => runtime?.delete(id) },
    { what: 'cgroup', point: 'ContainerExit.cgroup', undo: () => s.cgroups.remove(container.cgroup.path) },
    {
      what: 'image volumes',
      point: 'ContainerExit.imageVolumes',
      undo: () => unmountImageVolumes(paths, container.imageVolumes),
    },
    { what: 'root file system', point: 'ContainerExit.rootfs', undo: () => unmountRootfs(paths) },
    { what: 'exit file', point: 'ContainerExit.exitFile', undo: () => rm(paths.exit, { force: true }) },
  ]);
  if (failures.length === 0) {
    s.containers.update(id, { reaped: true, cleanup: undefined });
    return;
  }
  s.containers.update(id, { cleanup: failedAgain(container.cleanup, failures) });
  s.log.warn({ container: id, failures }, 'an exited container could not be cleaned up wholly');
}
