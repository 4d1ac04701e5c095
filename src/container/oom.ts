import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { Services } from '../services.ts';
import { readKernelLog } from '../sys/kernel-log.ts';
import type { ProcessIdentity } from '../sys/process-identity.ts';
import type { ContainerRecord } from './record.ts';

/** USER_HZ: the unit of start times in /proc, the same on every architecture that berth knows. */
const TICKS_PER_SECOND = 100;

/**
 * Whether the OOM killer has struck in a container that has ended. The cgroup's own counter says it, as long
 * as there is a cgroup: systemd removes a scope with its last process, most often before anybody has read
 * it. Then conmon may have been quick enough to leave its mark, and else the kernel's log has it.
 */
export async function wasOomKilled(s: Services, container: ContainerRecord): Promise<boolean> {
  const kills = s.cgroups.oomKills(container.cgroup.path);
  if (kills !== undefined) return kills > 0n;
  const marked = await access(join(s.paths.container(container.id).bundle, 'oom')).then(
    () => true,
    () => false,
  );
  return marked || (container.init !== undefined && isOomVictim(readKernelLog(), container.init));
}

/**
 * Whether the kernel's log names that very process as a victim of the OOM killer
 * (`__oom_kill_process` in mm/oom_kill.c). An older line may mean another process that had the same pid.
 */
export function isOomVictim(kernelLog: string, { pid, startTime }: ProcessIdentity): boolean {
  const startedAt = Math.floor(Number(startTime) / TICKS_PER_SECOND);
  for (const [, seconds, victim] of kernelLog.matchAll(
    /^<\d+>\[ *(\d+)\.\d+\].* Killed process (\d+) \(/gm,
  )) {
    if (Number(victim) === pid && Number(seconds) >= startedAt) return true;
  }
  return false;
}
