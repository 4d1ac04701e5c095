import { BerthError, during, messageOf } from '../../errors.ts';
import type { Client } from '../client.ts';
import { type Context, warn } from '../context.ts';
import { inventoryOfPod, removePod, waitForExit } from '../lifecycle.ts';
import { readLog } from '../logs/follow.ts';
import { pullImage } from '../pull-image.ts';
import { makePodDirectory, mountSource, removePodDirectory, writeHostsFile } from './directory.ts';
import { namespaceOf } from './env.ts';
import { isSidecar } from './resources.ts';
import type { PodContainer } from './schema.ts';
import { checkNonRoot } from './security.ts';
import {
  ANNOTATION,
  containersInOrder,
  type PodPlan,
  pullPolicy,
  toContainerConfig,
  toMount,
  toSandboxConfig,
} from './to-cri.ts';

/** A pod that runs. */
export interface StartedPod {
  id: string;
  name: string;
  namespace: string;
  uid: string;
  /** Empty with the node's network. */
  ips: string[];
  containers: { name: string; id: string; init: boolean }[];
}

/** The kubelet waits twice as long for a sandbox as for other calls, as CNI plugins may be slow. */
const SANDBOX_MS = 240_000;
/** Lines of a failed init container's output that are shown with its failure. */
const FAILURE_LINES = 10;

/**
 * Gets every image that the pods need, by each container's pull policy.
 *
 * @returns image ids by the names in the pods
 * @throws BerthError notFound for an image that may not be pulled and is not there
 */
export async function prepareImages(
  context: Context,
  client: Client,
  plans: readonly PodPlan[],
): Promise<Map<string, string>> {
  const ids = new Map<string, string>();
  for (const { pod } of plans) {
    for (const { container } of containersInOrder(pod)) {
      const policy = pullPolicy(container);
      const spec = { image: container.image };
      let { image } = await client.image('ImageStatus', { image: spec });
      if (policy === 'Never' && image === null) {
        throw new BerthError('notFound', `image ${container.image} not found, and imagePullPolicy is Never`);
      }
      const fresh = ids.has(container.image);
      if (image === null || (policy === 'Always' && !fresh)) {
        await pullImage(context, client, container.image).catch((e: unknown) => {
          throw during(`pull ${container.image}`, e);
        });
        ({ image } = await client.image('ImageStatus', { image: spec }));
      }
      if (image === null)
        throw new BerthError('internal', `image ${container.image} vanished after its pull`);
      checkNonRoot(pod, container, { uid: image.uid?.value, username: image.username });
      ids.set(container.image, image.id);
    }
  }
  return ids;
}

/**
 * Makes the pod and starts its containers in Kubernetes' order: init containers one after another to their
 * end (sidecars are only started), then the main ones. A failure removes all of it again.
 */
export async function startPod(
  context: Context,
  client: Client,
  plan: PodPlan,
  images: ReadonlyMap<string, string>,
): Promise<StartedPod> {
  const { pod, facts } = plan;
  const started: StartedPod = {
    id: '',
    name: pod.metadata.name,
    namespace: namespaceOf(pod),
    uid: facts.uid,
    ips: [],
    containers: [],
  };
  const name = `pod ${started.namespace}/${started.name}`;
  try {
    await makePodDirectory(plan);
    const config = toSandboxConfig(plan);
    const answer = await client.runtime(
      'RunPodSandbox',
      { config, runtime_handler: pod.spec.runtimeClassName ?? '' },
      { timeoutMs: SANDBOX_MS },
    );
    started.id = answer.pod_sandbox_id;
    const { status } = await client.runtime('PodSandboxStatus', { pod_sandbox_id: started.id });
    const network = status?.network;
    started.ips = [network?.ip ?? '', ...(network?.additional_ips ?? []).map(({ ip }) => ip)].filter(Boolean);
    const known = {
      ...plan,
      facts: { ...facts, podIps: pod.spec.hostNetwork ? facts.hostIps : started.ips },
    };
    await startContainers(client, known, config, images, started, context.signal);
    return started;
  } catch (e: unknown) {
    await rollBack(context, client, [plan]);
    throw during(name, e);
  }
}

/** Removes pods and all that was made for them, also after Ctrl-C; what cannot be removed is told. */
export async function rollBack(context: Context, client: Client, plans: readonly PodPlan[]): Promise<void> {
  const cleaner = client.uninterrupted();
  try {
    for (const plan of plans.toReversed()) {
      try {
        // Asked by UID: a RunPodSandbox that failed or was given up may have left a sandbox unknown to us.
        const { pods, containers } = await inventoryOfPod(cleaner, plan.facts.uid);
        for (const pod of pods) await removePod(cleaner, pod, containers, 0);
        await removePodDirectory(plan.facts.uid, { [ANNOTATION.podDirectory]: plan.podDirectory });
      } catch (e: unknown) {
        warn(context, `could not undo pod ${plan.pod.metadata.name}: ${messageOf(e)}`);
      }
    }
  } finally {
    cleaner.close();
  }
}

async function startContainers(
  client: Client,
  plan: PodPlan,
  sandboxConfig: ReturnType<typeof toSandboxConfig>,
  images: ReadonlyMap<string, string>,
  started: StartedPod,
  signal: AbortSignal,
): Promise<void> {
  const hosts = await writeHostsFile(plan);
  for (const { container, field, init } of containersInOrder(plan.pod)) {
    const { config, mounts } = toContainerConfig(plan, container, field, images.get(container.image) ?? '');
    const step = `${init ? 'init ' : ''}container ${container.name}`;
    try {
      const sources = await Promise.all(
        mounts.map(async (mount) => toMount(mount, await mountSource(mount))),
      );
      const { container_id } = await client.runtime('CreateContainer', {
        pod_sandbox_id: started.id,
        config: { ...config, mounts: [...sources, ...hostsMount(plan, container, hosts)] },
        sandbox_config: sandboxConfig,
      });
      started.containers.push({ name: container.name, id: container_id, init });
      await client.runtime('StartContainer', { container_id });
      if (init && !isSidecar(container)) await finishInit(client, container_id, signal);
    } catch (e: unknown) {
      throw during(step, e);
    }
  }
}

/** The kubelet's hosts file: not over a mount of the pod's own, and not over the node's unless aliases ask. */
function hostsMount(plan: PodPlan, container: PodContainer, file: string) {
  const { hostNetwork, hostAliases } = plan.pod.spec;
  const taken = (container.volumeMounts ?? []).some(({ mountPath }) => mountPath === '/etc/hosts');
  if (taken || (hostNetwork && (hostAliases ?? []).length === 0)) return [];
  return [{ host_path: file, container_path: '/etc/hosts', readonly: false }];
}

async function finishInit(client: Client, id: string, signal: AbortSignal): Promise<void> {
  const { exit_code, reason, message, log_path } = await waitForExit(client, id, signal);
  if (exit_code === 0) return;
  const lines: string[] = [];
  try {
    for await (const { text } of readLog(log_path, { tail: FAILURE_LINES, signal }))
      lines.push(`\n  ${text}`);
  } catch (e: unknown) {
    lines.push(`\n  (its log cannot be read: ${messageOf(e)})`);
  }
  const why = [reason, message].filter(Boolean).join(': ');
  throw new BerthError('internal', `ended with status ${exit_code}${why && ` (${why})`}${lines.join('')}`);
}
