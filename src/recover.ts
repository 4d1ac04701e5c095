import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { discardContainer } from './container/discard.ts';
import { recordExit, watchContainer } from './container/exit.ts';
import type { ContainerRecord } from './container/record.ts';
import { isErrno, messageOf } from './errors.ts';
import { discardSandbox } from './sandbox/discard.ts';
import { watchPause } from './sandbox/pause.ts';
import { isReady, type SandboxRecord } from './sandbox/record.ts';
import type { Services } from './services.ts';
import { listMounts, unmount } from './sys/mount.ts';
import { isAlive } from './sys/process-identity.ts';
import { nowNs } from './util/nanoseconds.ts';

/** What a start does about one record. */
export type Recovery = 'watch' | 'ended' | 'discard' | 'nothing';

/**
 * What to do about a sandbox record at start: one that was being made or removed is taken down, one
 * whose pause process has gone (also with a reboot: `sameBoot` false) is NOTREADY.
 */
export function sandboxRecovery(sandbox: SandboxRecord, sameBoot: boolean, pauseAlive: boolean): Recovery {
  if (sandbox.phase !== 'live') return 'discard';
  if (!isReady(sandbox)) return 'nothing';
  return sameBoot && pauseAlive ? 'watch' : 'ended';
}

/**
 * The same for a container. A monitor that is alive will write the exit file; one that is gone has
 * written it, or never will.
 */
export function containerRecovery(
  container: ContainerRecord,
  sameBoot: boolean,
  monitorAlive: boolean,
): Recovery {
  if (container.phase !== 'live') return 'discard';
  if (container.exit !== undefined) return container.reaped === true ? 'nothing' : 'ended';
  if (container.createError !== undefined && sameBoot) return 'nothing';
  return sameBoot && monitorAlive ? 'watch' : 'ended';
}

/**
 * Compares the records with what lives, after a start: processes that run are watched again, ends that
 * happened meanwhile are recorded, what was half made is taken down, and what has no record is swept.
 * One record that cannot be dealt with is logged and does not keep the others.
 */
export async function recover(s: Services): Promise<void> {
  for (const sandbox of [...s.sandboxes.values()]) {
    await attempt(s, { sandbox: sandbox.id }, async () => recoverSandbox(s, sandbox));
  }
  await Promise.all(
    [...s.containers.values()].map((c) => attempt(s, { container: c.id }, () => recoverContainer(s, c))),
  );
  await retryRemovals(s);
  await attempt(s, {}, () => sweepState(s));
}

/** Tries again to take down what could not be taken down before. */
export async function retryRemovals(s: Services): Promise<void> {
  for (const container of [...s.containers.values()].filter((c) => c.phase === 'removing')) {
    await s.locks.run(container.id, async () => {
      if (s.containers.get(container.id)?.phase === 'removing') await discardContainer(s, container.id);
    });
  }
  for (const sandbox of [...s.sandboxes.values()].filter((r) => r.phase === 'removing')) {
    await s.locks.run(sandbox.id, async () => {
      if (s.sandboxes.get(sandbox.id)?.phase === 'removing') await discardSandbox(s, sandbox.id);
    });
  }
}

async function recoverSandbox(s: Services, sandbox: SandboxRecord): Promise<void> {
  const sameBoot = sandbox.bootId === s.bootId;
  const alive = sandbox.pause !== undefined && isAlive(sandbox.pause);
  switch (sandboxRecovery(sandbox, sameBoot, alive)) {
    case 'watch':
      watchPause(s, sandbox.id);
      return;
    case 'ended':
      s.sandboxes.update(sandbox.id, { stoppedAt: nowNs() });
      // The network namespace went with the machine, but the plugins' leases did not.
      if (!sameBoot && sandbox.attachment !== undefined) {
        await s.cni.del(sandbox.attachment);
        s.sandboxes.update(sandbox.id, { attachment: undefined });
      }
      return;
    case 'discard':
      // retryRemovals takes it from here, after the containers in it.
      s.sandboxes.update(sandbox.id, { phase: 'removing' });
      return;
    case 'nothing':
      return;
  }
}

async function recoverContainer(s: Services, container: ContainerRecord): Promise<void> {
  const sameBoot = s.sandboxes.get(container.sandboxId)?.bootId === s.bootId;
  const alive = container.conmon !== undefined && isAlive(container.conmon);
  switch (containerRecovery(container, sameBoot, alive)) {
    case 'watch':
      watchContainer(s, container.id);
      return;
    case 'ended':
      await recordExit(s, container.id);
      return;
    case 'discard':
      s.containers.update(container.id, { phase: 'removing' });
      return;
    case 'nothing':
      return;
  }
}

async function attempt(s: Services, what: object, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (e: unknown) {
    s.log.error({ ...what, reason: messageOf(e) }, 'recovery failed; it goes on with the rest');
  }
}

/** Removes directories below `state` and `root` that belong to no record, with what is mounted in them. */
async function sweepState(s: Services): Promise<void> {
  const { paths } = s;
  const owners: [string, (id: string) => boolean][] = [
    [paths.sandboxes, (id) => s.sandboxes.get(id) !== undefined],
    [paths.bundles, (id) => s.containers.get(id) !== undefined],
    [paths.writableLayers, (id) => s.containers.get(id) !== undefined],
  ];
  for (const [dir, known] of owners) {
    for (const id of await namesIn(dir)) {
      if (known(id) || !/^[0-9a-f]{64}$/.test(id)) continue;
      s.log.warn({ dir, id }, 'swept a directory that no record names');
      for (const mount of listMounts(join(dir, id)).reverse()) unmount(mount.mountpoint, { lazy: true });
      await rm(join(dir, id), { recursive: true, force: true });
    }
  }
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT')) return [];
    throw e;
  }
}
