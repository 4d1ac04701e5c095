import type { Resources } from '../../cgroups/types.ts';
import { notFound } from '../errors.ts';
import type { Services } from '../services.ts';
import { checkResources } from '../spec/validate.ts';

/**
 * UpdatePodSandboxResources: keeps what the pod may use from now on. The pod's cgroup is the kubelet's,
 * which has written its limits before it calls this; what is kept is for handlers that size a machine by
 * it, and for who looks at the pod. What is absent stays as it is.
 *
 * @throws BerthError `notFound`, `invalid` naming the field; what a machine cannot be
 */
export async function updateSandboxResources(
  s: Services,
  id: string,
  given: { overhead: Resources; resources: Resources },
): Promise<void> {
  checkResources(given.overhead, 'overhead');
  checkResources(given.resources, 'resources');
  await s.locks.run(id, async () => {
    const sandbox = s.sandboxes.get(id);
    if (sandbox?.phase !== 'live') throw notFound(`sandbox "${id}"`);
    const { config, resized = {} } = sandbox;
    const resources = { ...config.resources, ...resized.resources, ...given.resources };
    await s.runtimes.get(sandbox.runtimeHandler)?.resizeSandbox?.(id, resources);
    s.sandboxes.update(id, {
      resized: {
        overhead: { ...config.overhead, ...resized.overhead, ...given.overhead },
        resources,
      },
    });
  });
}
