import { writeFile } from 'node:fs/promises';
import { CgroupError, type Resources } from '../../cgroups/index.ts';
import { BerthError, isErrno } from '../errors.ts';
import type { Services } from '../services.ts';
import { oomScoreAdj } from '../spec/process.ts';
import { checkOomScoreAdj, checkResources } from '../spec/validate.ts';
import { live, runtimeOf } from './start.ts';

/**
 * UpdateContainerResources: writes the limits that are given and keeps the caller's own numbers for
 * ContainerStatus. What is absent stays as it is.
 *
 * @param score oom_score_adj of the container's processes; a Burstable pod's follows its memory request
 * @throws BerthError `notFound`; `precondition` when it has exited or the limit is below what is in use
 */
export async function updateContainerResources(
  s: Services,
  id: string,
  resources: Resources,
  score?: bigint,
): Promise<void> {
  checkResources(resources, 'linux');
  checkOomScoreAdj(score ?? 0n, 'linux.oom_score_adj');
  live(s, id);
  await s.locks.run(id, async () => {
    const container = live(s, id);
    if (container.exit !== undefined) throw new BerthError('precondition', 'the container has exited');
    try {
      const runtime = runtimeOf(s, container);
      if (runtime.update === undefined || s.cgroups.exists(container.cgroup.path)) {
        await s.cgroups.update(container.cgroup.path, resources);
      } else await runtime.update(id, resources);
    } catch (e: unknown) {
      if (!(e instanceof CgroupError)) throw e;
      const kind = e.code === 'EBUSY' ? 'precondition' : e.code === 'EINVAL' ? 'invalid' : 'internal';
      throw new BerthError(kind, `linux: ${e.message}`, { cause: e });
    }
    const current = container.oomScoreAdj ?? container.config.oomScoreAdj;
    if (score !== undefined && score !== current) await setScores(s, container.cgroup.path, score);
    const given = Object.entries(resources).filter(([, value]) => value !== undefined);
    s.containers.update(id, {
      resources: { ...container.resources, ...Object.fromEntries(given) },
      ...(score === undefined ? {} : { oomScoreAdj: score }),
    });
  });
}

/** Of all processes there are; later ones inherit it. As at the start, it may not be below the daemon's reach. */
async function setScores(s: Services, cgroup: string, score: bigint): Promise<void> {
  const value = oomScoreAdj(Number(score), s.host.minOomScoreAdj);
  for (const pid of s.cgroups.procs(cgroup)) {
    try {
      await writeFile(`/proc/${pid}/oom_score_adj`, String(value));
    } catch (e: unknown) {
      // It has ended meanwhile.
      if (!isErrno(e, 'ENOENT', 'ESRCH')) throw e;
    }
  }
}
