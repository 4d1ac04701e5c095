import { CgroupError, type Resources } from '../../cgroups/index.ts';
import { BerthError } from '../errors.ts';
import type { Services } from '../services.ts';
import { checkResources } from '../spec/validate.ts';
import { live } from './start.ts';

/**
 * UpdateContainerResources: writes the limits that are given and keeps the caller's own numbers for
 * ContainerStatus. What is absent stays as it is.
 *
 * @throws BerthError `notFound`; `precondition` when it has exited or the limit is below what is in use
 */
export async function updateContainerResources(s: Services, id: string, resources: Resources): Promise<void> {
  checkResources(resources, 'linux');
  live(s, id);
  await s.locks.run(id, async () => {
    const container = live(s, id);
    if (container.exit !== undefined) throw new BerthError('precondition', 'the container has exited');
    try {
      await s.cgroups.update(container.cgroup.path, resources);
    } catch (e: unknown) {
      if (!(e instanceof CgroupError)) throw e;
      const kind = e.code === 'EBUSY' ? 'precondition' : e.code === 'EINVAL' ? 'invalid' : 'internal';
      throw new BerthError(kind, `linux: ${e.message}`, { cause: e });
    }
    const given = Object.entries(resources).filter(([, value]) => value !== undefined);
    s.containers.update(id, { resources: { ...container.resources, ...Object.fromEntries(given) } });
  });
}
