import { BerthError, invalid } from '../errors.ts';
import type { DnsConfig, PortMapping, SandboxMetadata } from '../sandbox/config.ts';
import { capabilityArgs } from './capabilities.ts';
import type { NetworkConf } from './conf.ts';
import type { JsonObject } from './json.ts';

/** What a pod asks of the network. */
export interface PodNetworkRequest {
  sandboxId: string;
  /** Where the pod's network namespace is (or will be) pinned. */
  netnsPath: string;
  metadata: Pick<SandboxMetadata, 'name' | 'namespace' | 'uid'>;
  portMappings: readonly PortMapping[];
  dns?: DnsConfig;
  annotations: Readonly<Record<string, string>>;
  /** The pod's cgroup parent as the kubelet spells it; empty when there is none. */
  cgroupPath: string;
}

/**
 * A pod's attachment to a network: everything that DEL needs, as plain JSON. It is stored before ADD
 * runs, so that whatever happens afterwards (daemon killed, node rebooted, configuration changed) DEL
 * runs with the arguments and the configuration of its ADD. `result` is there once ADD succeeded.
 */
export interface Attachment {
  sandboxId: string;
  netnsPath: string;
  ifName: string;
  /** `CNI_ARGS`: the Kubernetes names of the pod. */
  args: string;
  capabilityArgs: JsonObject;
  network: NetworkConf;
  /** The last plugin's result, in the network's version. */
  result?: JsonObject;
  /** The pod's addresses, the primary one first; empty before ADD. */
  ips: string[];
}

/** What libcni accepts as a container's id. */
const containerId = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/**
 * The attachment of a pod to a network, not made yet.
 * @throws BerthError `invalid`, naming the field of the CRI request
 */
export function newAttachment(pod: PodNetworkRequest, network: NetworkConf, ifName: string): Attachment {
  if (!containerId.test(pod.sandboxId))
    throw new BerthError('internal', 'the sandbox id is no CNI container id');
  const { name, namespace, uid } = pod.metadata;
  const args = [
    ['IgnoreUnknown', '1'],
    ['K8S_POD_NAMESPACE', checkArg('config.metadata.namespace', namespace)],
    ['K8S_POD_NAME', checkArg('config.metadata.name', name)],
    ['K8S_POD_INFRA_CONTAINER_ID', pod.sandboxId],
    ['K8S_POD_UID', checkArg('config.metadata.uid', uid)],
  ];
  return {
    sandboxId: pod.sandboxId,
    netnsPath: pod.netnsPath,
    ifName,
    args: args.map((pair) => pair.join('=')).join(';'),
    capabilityArgs: capabilityArgs(pod),
    network,
    ips: [],
  };
}

/** `CNI_ARGS` has no quoting: ";" starts another argument, and plugins refuse a second "=". */
function checkArg(field: string, value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: an environment variable cannot hold NUL
  if (/[;=\u0000-\u001f\u007f]/.test(value))
    throw invalid(field, 'must not contain ";", "=" or control characters');
  return value;
}
