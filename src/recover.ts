import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { noteExit, watchContainer } from './container/exit.ts';
import type { ContainerRecord } from './container/record.ts';
import { isErrno, messageOf } from './errors.ts';
import type { Attachment } from './network/attachment.ts';
import { arePinned } from './sandbox/namespaces.ts';
import { watchPause } from './sandbox/pause.ts';
import { isReady, type SandboxRecord } from './sandbox/record.ts';
import type { Services } from './services.ts';
import { endHelpers, findHelpers } from './sys/helpers.ts';
import { listMounts, unmount } from './sys/mount.ts';
import { isAlive } from './sys/process-identity.ts';
import { orAborted } from './util/abort.ts';
import { nowNs } from './util/nanoseconds.ts';

/** How long a start waits for the record of an end that a handler is about to tell, milliseconds. */
const END_MS = 10_000;

/** What a start does about one record. */
export type Recovery = 'watch' | 'ended' | 'discard' | 'nothing';

/**
 * What to do about a sandbox record at start: one that was being made or removed is taken down, one
 * whose namespaces nothing holds any more (always so after a reboot: `sameBoot` false) is NOTREADY.
 */
export function sandboxRecovery(sandbox: SandboxRecord, sameBoot: boolean, isHeld: boolean): Recovery {
  if (sandbox.phase !== 'live') return 'discard';
  if (!isReady(sandbox)) return 'nothing';
  return sameBoot && isHeld ? 'watch' : 'ended';
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

/** How far the recovery of a start has come. Neither promise rejects. */
export interface RecoveryProgress {
  /** The records tell what lives: lists and statuses can be answered. */
  readonly known: Promise<void>;
  /** Nothing that an earlier berthd began goes on either: changes can be made. */
  readonly done: Promise<void>;
}

/**
 * Compares the records with what lives, after a start: processes that run are watched again and ends that
 * happened meanwhile are recorded. Then helpers of the earlier berthd are ended. Only this is waited for before
 * calls are answered; what was half made, and what is left of the ended, is on the to-do list afterwards. One record
 * that cannot be dealt with is logged and does not keep the others.
 */
export function recover(s: Services): RecoveryProgress {
  // A start that is under way would come true after its container was listed as one that has not started.
  const mayBeStarting = [...s.containers.values()].some(
    (c) => c.phase === 'live' && c.startedAt === undefined && c.exit === undefined,
  );
  const endStrays = () => attempt(s, {}, () => endStrayHelpers(s));
  const known = (async () => {
    await attempt(s, {}, () => s.faults.at('Recovery.begun'));
    if (mayBeStarting) await endStrays();
    await Promise.all([
      ...[...s.sandboxes.values()].map((r) => attempt(s, { sandbox: r.id }, () => recoverSandbox(s, r))),
      ...[...s.containers.values()].map((c) => attempt(s, { container: c.id }, () => recoverContainer(s, c))),
    ]);
  })();
  const done = known.then(async () => {
    // Those who have waited for the records are answered first.
    await setImmediate();
    if (!mayBeStarting) await endStrays();
  });
  return { known, done };
}

/**
 * Ends what a killed daemon left working for its sandboxes and containers: an OCI runtime that is about to
 * make a container, a CNI plugin that is about to take an address. Otherwise they would finish after what
 * they work for was taken down, and nobody would ever undo it. Monitors of containers that are on record
 * as made are the ones that are meant to go on.
 */
async function endStrayHelpers(s: Services): Promise<void> {
  await s.faults.at('Recovery.helpers');
  const live = [...s.containers.values()].filter(({ phase }) => phase === 'live');
  const meant = new Set(live.flatMap(({ conmon, init }) => [conmon?.pid, init?.pid]));
  const known = {
    has: (id: string) => s.sandboxes.get(id) !== undefined || s.containers.get(id) !== undefined,
  };
  const strays = await findHelpers(known, { except: meant });
  if (strays.length === 0) return;
  s.log.info({ helpers: strays.length }, 'ending helper processes that a killed berthd left');
  await endHelpers(strays);
}

async function recoverSandbox(s: Services, sandbox: SandboxRecord): Promise<void> {
  await s.faults.at('Recovery.sandbox');
  const sameBoot = sandbox.bootId === s.bootId;
  switch (sandboxRecovery(sandbox, sameBoot, isHeld(s, sandbox))) {
    case 'watch':
      watchPause(s, sandbox.id);
      s.runtimes.get(sandbox.runtimeHandler)?.adopt?.(sandbox.id);
      return;
    case 'ended':
      s.sandboxes.update(sandbox.id, { stoppedAt: nowNs() });
      return;
    case 'discard':
      s.sandboxes.update(sandbox.id, { phase: 'removing' });
      return;
    case 'nothing':
      return;
  }
}

/** By its pause process or, where the pod was made without one, by the pins of its namespaces. */
function isHeld(s: Services, { id, config, pause }: SandboxRecord): boolean {
  return pause === undefined ? arePinned(s.paths.sandbox(id).namespaces, config) : isAlive(pause);
}

async function recoverContainer(s: Services, container: ContainerRecord): Promise<void> {
  await s.faults.at('Recovery.container');
  const sameBoot = s.sandboxes.get(container.sandboxId)?.bootId === s.bootId;
  const { conmon } = container;
  const runtime = s.runtimes.get(s.sandboxes.get(container.sandboxId)?.runtimeHandler ?? '');
  // Of a handler that the configuration has lost at least that much can be told.
  const alive = runtime?.isMonitored(container) ?? (conmon !== undefined && isAlive(conmon));
  switch (containerRecovery(container, sameBoot, alive)) {
    case 'watch':
      watchContainer(s, container.id);
      // The first list after the start must not show it running.
      if (await runtime?.hasEnded?.(container)) await toldSoon(s, container.id);
      else if (container.startedAt === undefined) await noteStart(s, container);
      return;
    case 'ended':
      await noteExit(s, container.id);
      return;
    case 'discard':
      s.containers.update(container.id, { phase: 'removing' });
      return;
    case 'nothing':
      return;
  }
}

/** Waits until the end of a container is on record, and not long. */
async function toldSoon(s: Services, id: string): Promise<void> {
  await orAborted(s.exits.ended(id), AbortSignal.timeout(END_MS)).catch(() => {});
}

/** The daemon may have been killed after the OCI runtime's `start` and before it was on record. */
async function noteStart(s: Services, { id, sandboxId }: ContainerRecord): Promise<void> {
  const runtime = s.runtimes.get(s.sandboxes.require(sandboxId).runtimeHandler);
  if (await runtime?.isStarted(id)) s.containers.update(id, { startedAt: nowNs() });
}

async function attempt(s: Services, what: object, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (e: unknown) {
    s.log.error({ ...what, reason: messageOf(e) }, 'recovery failed; it goes on with the rest');
  }
}

/** Removes directories below `state` and `root` that belong to no record, with what is mounted in them. Never rejects. */
export async function sweep(s: Services): Promise<void> {
  await attempt(s, {}, () => sweepState(s));
}

/** Has the network's plugins free what is attached to no sandbox on record, unless others share it. Never rejects. */
export async function collectAttachments(s: Services): Promise<void> {
  if (s.config.network.gc) await attempt(s, {}, () => s.cni.gc(() => attachmentsOf(s)));
}

/** Of sandboxes that are being made or taken down, too: those are added or deleted by name. */
function attachmentsOf(s: Services): Attachment[] {
  return [...s.sandboxes.values()].flatMap(({ attachment }) =>
    attachment === undefined ? [] : [attachment],
  );
}

async function sweepState(s: Services): Promise<void> {
  await s.faults.at('Recovery.sweep');
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
      s.metrics.leakSwept();
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
