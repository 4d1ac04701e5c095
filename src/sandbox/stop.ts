import { stopContainer } from '../container/stop.ts';
import { BerthError } from '../errors.ts';
import type { Services } from '../services.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { tearDown } from '../util/teardown.ts';
import { shutDownSteps } from './discard.ts';

/**
 * StopPodSandbox: kills what still runs in the sandbox, gives back its network, ends the pause process.
 * The record stays, with its addresses, until the sandbox is removed. Absent and stopped ones are done.
 *
 * @throws BerthError `internal` naming what could not be stopped; the caller may try again
 */
export async function stopPodSandbox(s: Services, id: string): Promise<void> {
  const asked = s.sandboxes.get(id);
  if (asked === undefined || asked.phase !== 'live') return;
  const containers = [...s.containers.values()].filter((c) => c.sandboxId === id && c.phase === 'live');
  // The kubelet has stopped them before, with their grace; whatever runs now gets none.
  const stops = await Promise.allSettled(containers.map((c) => stopContainer(s, c.id, 0)));
  const stuck = stops.flatMap((stop, i) =>
    stop.status === 'rejected'
      ? [`container ${containers[i]?.config.metadata.name}: ${stop.reason.message}`]
      : [],
  );
  await s.faults.at('StopPodSandbox.containers');
  const failures = await s.locks.run(id, async () => {
    const sandbox = s.sandboxes.get(id);
    if (sandbox?.phase !== 'live') return [];
    // Before the pause ends, or its watcher would report a sandbox that died by itself.
    if (sandbox.stoppedAt === undefined) s.sandboxes.update(id, { stoppedAt: nowNs() });
    await s.faults.at('StopPodSandbox.recorded');
    return tearDown(s.faults, shutDownSteps(s, sandbox));
  });
  const problems = [...stuck, ...failures];
  if (problems.length > 0)
    throw new BerthError('internal', `the sandbox is not wholly stopped: ${problems.join('; ')}`);
}
