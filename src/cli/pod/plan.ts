import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname, networkInterfaces, totalmem } from 'node:os';
import path from 'node:path';
import { BerthError, isErrno } from '../../errors.ts';
import { UsageError } from '../errors.ts';
import { namespaceOf } from './env.ts';
import type { ParsedPod } from './parse.ts';
import { readPodResources } from './resources.ts';
import { type NodeFacts, type PodPlan, parseResolvConf, validatePlan } from './to-cri.ts';
import { planVolumes } from './volumes.ts';

/** What the user chose for all pods of a run. */
export interface PlanOptions {
  /** Absolute; each pod gets a directory with its UID here. */
  podsDirectory: string;
  nodeName: string;
  cgroupParent: string;
}

/** What pods are told of this node. */
export async function nodeFacts(cgroupParent: string): Promise<NodeFacts> {
  const text = await readFile('/etc/resolv.conf', 'utf8').catch((e: unknown) => {
    if (isErrno(e, 'ENOENT')) return '';
    throw e;
  });
  return { memoryCapacity: BigInt(totalmem()), dns: parseResolvConf(text), cgroupParent };
}

/** The node's name in pods: the host's, as a kubelet without another order says it. */
export function defaultNodeName(): string {
  return hostname().toLowerCase();
}

/**
 * All that is needed to make the pod, checked.
 *
 * @throws UsageError that names the pod and the field
 */
export function planPod({ pod, warnings }: ParsedPod, node: NodeFacts, options: PlanOptions): PodPlan {
  const uid = pod.metadata.uid ?? randomUUID();
  const podDirectory = path.join(options.podsDirectory, uid);
  try {
    const plan: PodPlan = {
      pod,
      facts: { uid, nodeName: options.nodeName, podIps: [], hostIps: hostAddresses() },
      node,
      resources: readPodResources(pod, (text) => warnings.push(text)),
      volumes: planVolumes(pod, podDirectory),
      podDirectory,
    };
    validatePlan(plan);
    return plan;
  } catch (e: unknown) {
    if (!(e instanceof BerthError) || e.kind !== 'invalid') throw e;
    throw new UsageError(`pod ${namespaceOf(pod)}/${pod.metadata.name}: ${e.message}`);
  }
}

/** Addresses by which others reach this node, IPv4 first. */
function hostAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const outside = all.filter(({ internal, address }) => !internal && !address.startsWith('fe80:'));
  const families = ['IPv4', 'IPv6'].map((family) => outside.filter((address) => address.family === family));
  return families.flatMap((list) => list.slice(0, 1)).map(({ address }) => address);
}
