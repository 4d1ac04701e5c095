import { BerthError, messageOf } from '../errors.ts';
import type { Services } from '../services.ts';
import { orAborted } from '../util/abort.ts';
import { recordExit } from './exit.ts';
import { type ContainerRecord, containerState } from './record.ts';

/** After SIGKILL only the kernel can hold a process; then the caller is told, milliseconds. */
const KILL_WAIT_MS = 10_000;

/**
 * StopContainer: the stop signal, the grace period, then SIGKILL to all of the container's cgroup.
 * Returns when the container's end is on record. Absent and exited ones are done; of several calls for
 * one container the shortest grace counts.
 *
 * @param timeoutSeconds grace; 0 kills at once
 * @throws BerthError `deadline` when even SIGKILL did not end it
 */
export async function stopContainer(s: Services, id: string, timeoutSeconds: number): Promise<void> {
  const container = s.containers.get(id);
  if (container === undefined || container.phase !== 'live' || container.exit !== undefined) return;
  if (container.createError !== undefined) {
    await recordExit(s, id);
    return;
  }
  await s.stopLoops.run(id, Math.max(timeoutSeconds, 0) * 1000, (graceOver) =>
    stop(s, id, timeoutSeconds <= 0, graceOver),
  );
}

async function stop(s: Services, id: string, atOnce: boolean, graceOver: Promise<void>): Promise<void> {
  const ended = s.exits.ended(id);
  await s.faults.at('StopContainer.begun');
  const container = s.containers.get(id);
  if (container === undefined) return;
  if (!atOnce && containerState(container) === 'running') {
    // Not waited for: an OCI runtime that hangs must not lengthen the grace.
    void sendStopSignal(s, id);
    await Promise.race([ended, graceOver]);
  }
  const patience = AbortSignal.timeout(KILL_WAIT_MS);
  const problem = s.containers.get(id)?.exit === undefined ? await killAll(s, container, patience) : '';
  await s.faults.at('StopContainer.killed');
  await orAborted(ended, patience).catch(() => {});
  // With its end on record it is stopped, even when clearing up after it takes longer. One that is being
  // removed meanwhile gets no such record.
  const now = s.containers.get(id);
  if (now?.phase !== 'live' || now.exit !== undefined) return;
  throw new BerthError(
    'deadline',
    `SIGKILL did not end the container within ${KILL_WAIT_MS / 1000} s${problem}`,
  );
}

/** @returns what went wrong, to be put after the message that the container still runs */
async function killAll(
  s: Services,
  { id, sandboxId, cgroup }: ContainerRecord,
  signal: AbortSignal,
): Promise<string> {
  try {
    const runtime = s.runtimes.get(s.sandboxes.require(sandboxId).runtimeHandler);
    if (runtime?.killAll !== undefined && !s.cgroups.exists(cgroup.path)) {
      await orAborted(runtime.killAll(id), signal);
    }
    await s.cgroups.kill(cgroup.path, signal);
    return '';
  } catch (e: unknown) {
    s.log.warn({ container: id, reason: messageOf(e) }, 'its processes could not be killed');
    return `: ${messageOf(e)}`;
  }
}

async function sendStopSignal(s: Services, id: string): Promise<void> {
  const { sandboxId, stopSignal } = s.containers.require(id);
  try {
    await s.runtimes.get(s.sandboxes.require(sandboxId).runtimeHandler)?.kill(id, stopSignal);
  } catch (e: unknown) {
    // It may have ended in between. If not, the end of grace kills it.
    s.log.debug({ container: id, reason: messageOf(e) }, 'the stop signal was not delivered');
  }
}
