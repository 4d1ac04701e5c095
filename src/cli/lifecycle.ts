import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerStatus__Output as ContainerStatus } from '../../proto/gen/runtime/v1/ContainerStatus.ts';
import { BerthError, kindOf, notFound } from '../errors.ts';
import type { CallSettings, Client } from './client.ts';
import { removePodDirectory } from './pod/directory.ts';
import { ANNOTATION, DEFAULT_GRACE_SECONDS, LABEL, SIDECAR } from './pod/to-cri.ts';
import type { Container, Inventory, Pod } from './resolve.ts';

/** What the kubelet adds to a stop's own time before it gives up on the answer, in milliseconds. */
const CALL_MS = 120_000;
const FIRST_POLL_MS = 20;
const LAST_POLL_MS = 500;

/** A container's status. @throws BerthError notFound */
export async function containerStatus(
  client: Client,
  id: string,
  settings?: CallSettings,
): Promise<ContainerStatus> {
  const { status } = await client.runtime('ContainerStatus', { container_id: id }, settings);
  if (status === null) throw notFound(`container ${id}`);
  return status;
}

/** The status of a container that has come to its end. Asks seldomer the longer it takes. */
export async function waitForExit(client: Client, id: string, signal: AbortSignal): Promise<ContainerStatus> {
  for (let pause = FIRST_POLL_MS; ; pause = Math.min(pause * 1.5, LAST_POLL_MS)) {
    const status = await containerStatus(client, id, { signal });
    if (status.state === 'CONTAINER_EXITED') return status;
    await delay(pause, undefined, { signal });
  }
}

/** Whether a container has ended or is gone, so that its log grows no more. */
export async function hasEnded(client: Client, id: string): Promise<boolean> {
  try {
    const { state } = await containerStatus(client, id);
    return state !== 'CONTAINER_RUNNING' && state !== 'CONTAINER_CREATED';
  } catch (e: unknown) {
    if (kindOf(e) === 'notFound') return true;
    throw e;
  }
}

/** The seconds that the pod's author gave it to end. */
function graceOf(annotations: Record<string, string>): number {
  const text = annotations[ANNOTATION.gracePeriod] ?? '';
  return /^\d{1,9}$/.test(text) ? Number(text) : DEFAULT_GRACE_SECONDS;
}

/** Stops a container; one that has ended already is fine. `graceSeconds` undefined: as its pod says. */
export async function stopContainer(
  client: Client,
  container: Pick<Container, 'id' | 'annotations'>,
  graceSeconds?: number,
): Promise<void> {
  const timeout = graceSeconds ?? graceOf(container.annotations);
  const settings = { timeoutMs: CALL_MS + timeout * 1000 };
  await client.runtime('StopContainer', { container_id: container.id, timeout }, settings);
}

/** Stops all of a pod: its main containers side by side, then its sidecars last first, then the sandbox. */
export async function stopPod(
  client: Client,
  pod: Pick<Pod, 'id'>,
  containers: readonly Container[],
  graceSeconds?: number,
): Promise<void> {
  const running = containers.filter(
    (c) => c.pod_sandbox_id === pod.id && c.state !== 'CONTAINER_EXITED' && c.state !== 'CONTAINER_CREATED',
  );
  const [sidecars, mains] = [running.filter(isSidecar), running.filter((c) => !isSidecar(c))];
  const results = await Promise.allSettled(mains.map((c) => stopContainer(client, c, graceSeconds)));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
  for (const sidecar of sidecars.toSorted((a, b) => (BigInt(a.created_at) < BigInt(b.created_at) ? 1 : -1))) {
    await stopContainer(client, sidecar, graceSeconds);
  }
  await client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id });
}

/** The sandboxes that have this UID, of which there should be one, and their containers. */
export async function inventoryOfPod(client: Client, uid: string): Promise<Inventory> {
  const filter = { label_selector: { [LABEL.podUid]: uid } };
  const [pods, containers] = await Promise.all([
    client.runtime('ListPodSandbox', { filter }),
    client.runtime('ListContainers', { filter }),
  ]);
  return { pods: pods.items, containers: containers.containers };
}

/** Stops and removes a pod, its containers and, when `berth run` made it, its directory. */
export async function removePod(
  client: Client,
  pod: Pick<Pod, 'id' | 'metadata' | 'annotations'>,
  containers: readonly Container[],
  graceSeconds?: number,
): Promise<void> {
  await stopPod(client, pod, containers, graceSeconds);
  const own = containers.filter((c) => c.pod_sandbox_id === pod.id);
  await Promise.all(own.map((c) => client.runtime('RemoveContainer', { container_id: c.id })));
  await client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id });
  await removePodDirectory(pod.metadata?.uid ?? '', pod.annotations);
}

/** Does the same to each of several, goes on after a failure, and then fails with the first. */
export async function forEach<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const errors: unknown[] = [];
  for (const item of items) await work(item).catch((e: unknown) => errors.push(e));
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) {
    const messages = errors.map((e) => (e instanceof Error ? e.message : String(e)));
    throw new BerthError(kindOf(errors[0]), messages.join('\nberth: '));
  }
}

function isSidecar(container: Container): boolean {
  return container.annotations[SIDECAR] === 'true';
}
