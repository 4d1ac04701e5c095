import type { Container__Output as Container } from '../../proto/gen/runtime/v1/Container.ts';
import type { PodSandbox__Output as Pod } from '../../proto/gen/runtime/v1/PodSandbox.ts';
import { notFound } from '../errors.ts';
import type { Client } from './client.ts';
import { UsageError } from './errors.ts';
import { shortId } from './output.ts';

export type { Container, Pod };

/** What a user's word can mean. */
export type Target =
  | { kind: 'pod'; pod: Pod }
  | { kind: 'container'; container: Container; pod: Pod | undefined };

/** Pods and containers of a node at one moment. */
export interface Inventory {
  pods: Pod[];
  containers: Container[];
}

/** Asks the daemon for all pods and containers, in any state. */
export async function inventory(client: Client): Promise<Inventory> {
  const [pods, containers] = await Promise.all([
    client.runtime('ListPodSandbox', {}),
    client.runtime('ListContainers', {}),
  ]);
  return { pods: pods.items, containers: containers.containers };
}

/** `namespace/name` of a pod. */
export function podName(pod: Pod | undefined): string {
  return pod === undefined ? '?' : `${pod.metadata?.namespace || 'default'}/${pod.metadata?.name ?? ''}`;
}

/** The pod that a container is in, if it is still listed. */
export function podOf(container: Container, { pods }: Inventory): Pod | undefined {
  return pods.find((pod) => pod.id === container.pod_sandbox_id);
}

/**
 * The one pod or container that `word` means: a full id, a name (`pod`, `namespace/pod`, `pod/container`,
 * `namespace/pod/container`) or the beginning of an id, in this order. Of several attempts with one name
 * the newest is meant.
 *
 * @param kinds what may be meant
 * @throws BerthError notFound, UsageError listing the candidates when several match
 */
export function resolve(word: string, all: Inventory, kinds: readonly Target['kind'][]): Target {
  const noun = kinds.join(' or ');
  const candidates: Target[] = [
    ...(kinds.includes('pod') ? all.pods.map((pod): Target => ({ kind: 'pod', pod })) : []),
    ...(kinds.includes('container')
      ? all.containers.map(
          (container): Target => ({ kind: 'container', container, pod: podOf(container, all) }),
        )
      : []),
  ];
  const exact = candidates.filter((target) => idOf(target) === word);
  const named = newestByName(candidates.filter((target) => namesOf(target).includes(word)));
  const prefixed = word === '' ? [] : candidates.filter((target) => idOf(target).startsWith(word));
  const found = [exact, named, prefixed].find((list) => list.length > 0) ?? [];
  const [first, ...others] = found;
  if (first === undefined) throw notFound(`${noun} ${JSON.stringify(word)}`);
  if (others.length === 0) return first;
  const list = found.map((target) => `  ${shortId(idOf(target))}  ${target.kind} ${fullName(target)}`);
  throw new UsageError(`${JSON.stringify(word)} means more than one ${noun}:\n${list.join('\n')}`);
}

/** The container that `word` means. @throws as `resolve` does */
export function resolveContainer(
  word: string,
  all: Inventory,
): { container: Container; pod: Pod | undefined } {
  const target = resolve(word, all, ['container']);
  if (target.kind !== 'container') throw notFound(`container ${JSON.stringify(word)}`);
  return target;
}

export function idOf(target: Target): string {
  return target.kind === 'pod' ? target.pod.id : target.container.id;
}

/** The longest name, which no other running pod or container has. */
export function fullName(target: Target): string {
  if (target.kind === 'pod') return podName(target.pod);
  return `${podName(target.pod)}/${target.container.metadata?.name ?? ''}`;
}

function namesOf(target: Target): string[] {
  const full = fullName(target);
  return [full, full.slice(full.indexOf('/') + 1)];
}

/** A container or pod that was made anew has its predecessor's name; people mean the one there is now. */
function newestByName(targets: readonly Target[]): Target[] {
  const newest = new Map<string, Target>();
  for (const target of targets) {
    const other = newest.get(fullName(target));
    if (other === undefined || createdAt(target) > createdAt(other)) newest.set(fullName(target), target);
  }
  return [...newest.values()];
}

function createdAt(target: Target): bigint {
  return BigInt(target.kind === 'pod' ? target.pod.created_at : target.container.created_at);
}
