import path from 'node:path';
import { invalid } from '../../errors.ts';
import { environment, namespaceOf, type PodFacts } from './env.ts';
import { expand } from './expand.ts';
import { isSidecar, oomScoreAdj, type PodResources, toLinuxResources } from './resources.ts';
import type { Pod, PodContainer } from './schema.ts';
import { containerSecurity, sandboxSecurity } from './security.ts';
import { type MountPlan, planMounts, type VolumePlan } from './volumes.ts';

/** Labels and annotations by which the kubelet's tools know pods and containers; ours show up there too. */
export const LABEL = {
  podName: 'io.kubernetes.pod.name',
  podNamespace: 'io.kubernetes.pod.namespace',
  podUid: 'io.kubernetes.pod.uid',
  containerName: 'io.kubernetes.container.name',
} as const;
export const ANNOTATION = {
  gracePeriod: 'io.kubernetes.pod.terminationGracePeriod',
  podDirectory: 'berth.run/pod-directory',
} as const;

/** Annotation of a container that is stopped after the main ones, as Kubernetes does with sidecars. */
export const SIDECAR = 'berth.run/sidecar';

/** Kubernetes' default of `terminationGracePeriodSeconds`. */
export const DEFAULT_GRACE_SECONDS = 30;

/** What of the node goes into the configurations of a pod. */
export interface NodeFacts {
  /** The node's memory in bytes. */
  memoryCapacity: bigint;
  /** The node's resolv.conf, which `dnsConfig` adds to. */
  dns: DnsConfig;
  cgroupParent: string;
}

/** `DNSConfig` of CRI. */
export interface DnsConfig {
  servers: string[];
  searches: string[];
  options: string[];
}

/** Everything about one pod that its configurations are made from. */
export interface PodPlan {
  pod: Pod;
  facts: PodFacts;
  node: NodeFacts;
  resources: PodResources;
  volumes: ReadonlyMap<string, VolumePlan>;
  /** Absolute; holds the pod's logs, volumes and hosts file. */
  podDirectory: string;
}

/** `PodSandboxConfig` of the pod. */
export function toSandboxConfig(plan: PodPlan) {
  const { pod, facts, node } = plan;
  return {
    metadata: { name: pod.metadata.name, namespace: namespaceOf(pod), uid: facts.uid, attempt: 0 },
    hostname: hostnameOf(pod),
    log_directory: path.join(plan.podDirectory, 'logs'),
    ...dnsConfig(pod, node.dns),
    port_mappings: portMappings(pod),
    labels: { ...pod.metadata.labels, ...podLabels(plan) },
    annotations: {
      ...pod.metadata.annotations,
      [ANNOTATION.gracePeriod]: String(graceSeconds(pod)),
      [ANNOTATION.podDirectory]: plan.podDirectory,
    },
    linux: {
      cgroup_parent: node.cgroupParent,
      security_context: sandboxSecurity(pod),
      sysctls: Object.fromEntries((pod.spec.securityContext?.sysctls ?? []).map((s) => [s.name, s.value])),
      resources: toLinuxResources(plan.resources.pod, 0n),
    },
  };
}

/** A container's `ContainerConfig`, and the mounts that it will have once they are prepared. */
export function toContainerConfig(plan: PodPlan, container: PodContainer, field: string, imageId: string) {
  const { pod, facts } = plan;
  const values = environment(pod, container, facts, field);
  const resources = plan.resources.containers.get(container.name);
  if (resources === undefined) throw invalid(field, 'has no resources in the plan');
  const score = oomScoreAdj(plan.resources, container.name, plan.node.memoryCapacity);
  const config = {
    metadata: { name: container.name, attempt: 0 },
    image: { image: imageId, user_specified_image: container.image },
    command: (container.command ?? []).map((text) => expand(text, values)),
    args: (container.args ?? []).map((text) => expand(text, values)),
    working_dir: container.workingDir ?? '',
    envs: [...values].map(([key, value]) => ({ key, value: Buffer.from(value) })),
    labels: { ...podLabels(plan), [LABEL.containerName]: container.name },
    annotations: {
      [ANNOTATION.gracePeriod]: String(graceSeconds(pod)),
      ...(isSidecar(container) && { [SIDECAR]: 'true' }),
    },
    log_path: path.join(container.name, '0.log'),
    stdin: container.stdin === true,
    stdin_once: container.stdinOnce === true,
    tty: container.tty === true,
    linux: {
      resources: toLinuxResources(resources, score),
      security_context: containerSecurity(pod, container, field),
    },
  };
  return { config, mounts: planMounts(container, plan.volumes, values, field) };
}

/** `Mount` of CRI for a mount whose host side is at `hostPath` by now. */
export function toMount(mount: MountPlan, hostPath: string) {
  return {
    host_path: hostPath,
    container_path: mount.containerPath,
    readonly: mount.readonly,
    recursive_read_only: mount.recursiveReadOnly,
    propagation: mount.propagation,
  };
}

/** Containers in the order in which they start, each with its path in the pod. */
export function containersInOrder(pod: Pod): { container: PodContainer; field: string; init: boolean }[] {
  const inits = (pod.spec.initContainers ?? []).map((container, index) => ({
    container,
    field: `spec.initContainers[${index}]`,
    init: true,
  }));
  const mains = pod.spec.containers.map((container, index) => ({
    container,
    field: `spec.containers[${index}]`,
    init: false,
  }));
  return [...inits, ...mains];
}

/**
 * Finds what is wrong with a pod before anything of it is made, by making every configuration once.
 *
 * @throws BerthError invalid
 */
export function validatePlan(plan: PodPlan): void {
  if (plan.pod.spec.hostUsers === false) {
    throw invalid('spec.hostUsers', 'berth run has no user ID ranges to give out; leave it out or set true');
  }
  const names = new Set<string>();
  for (const { container, field, init } of containersInOrder(plan.pod)) {
    if (names.has(container.name)) throw invalid(`${field}.name`, `${container.name} is there twice`);
    names.add(container.name);
    if (container.restartPolicy != null && !(init && container.restartPolicy === 'Always')) {
      throw invalid(`${field}.restartPolicy`, 'must be Always, on an init container, or absent');
    }
    toContainerConfig(plan, container, field, '');
  }
  toSandboxConfig(plan);
}

/** When a container's image is pulled: as stated, else Always for `latest` or no tag, else IfNotPresent. */
export function pullPolicy(container: PodContainer): 'Always' | 'IfNotPresent' | 'Never' {
  if (container.imagePullPolicy != null) return container.imagePullPolicy;
  if (container.image.includes('@')) return 'IfNotPresent';
  const tag = /:([^/:]+)$/.exec(container.image)?.[1];
  return tag === undefined || tag === 'latest' ? 'Always' : 'IfNotPresent';
}

/** Seconds between asking the pod's processes to end and killing them. */
export function graceSeconds(pod: Pod): number {
  return pod.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS;
}

/** The text of the pod's /etc/hosts, which the kubelet writes for its pods. */
export function hostsFile(pod: Pod, facts: PodFacts): string {
  const own = facts.podIps.map((ip) => `${ip}\t${hostnameOf(pod)}`);
  const aliases = (pod.spec.hostAliases ?? []).map(({ ip, hostnames }) =>
    [ip, ...(hostnames ?? [])].join('\t'),
  );
  return [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::0\tip6-localnet',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...own,
    ...aliases,
    '',
  ].join('\n');
}

/** Empty with the node's network, whose UTS name the pod shares. 63 is the kernel's and DNS' limit. */
function hostnameOf(pod: Pod): string {
  if (pod.spec.hostNetwork) return '';
  return (pod.spec.hostname || pod.metadata.name).slice(0, 63).replace(/[-.]+$/, '');
}

function podLabels({ pod, facts }: PodPlan): Record<string, string> {
  return {
    [LABEL.podName]: pod.metadata.name,
    [LABEL.podNamespace]: namespaceOf(pod),
    [LABEL.podUid]: facts.uid,
  };
}

/** Ports that are not published are listed too, with host port 0, as the kubelet does. */
function portMappings(pod: Pod) {
  if (pod.spec.hostNetwork) return [];
  const containers = containersInOrder(pod).map(({ container }) => container);
  const ports = containers.flatMap((container) => container.ports ?? []);
  return ports.map((port) => ({
    protocol: port.protocol ?? ('TCP' as const),
    container_port: port.containerPort,
    host_port: port.hostPort ?? 0,
    host_ip: port.hostIP ?? '',
  }));
}

/**
 * Without cluster DNS, ClusterFirst is Default: the node's resolv.conf, which the runtime copies by
 * itself when it is sent none.
 */
function dnsConfig(pod: Pod, node: DnsConfig): { dns_config?: DnsConfig } {
  const none = pod.spec.dnsPolicy === 'None';
  const own = pod.spec.dnsConfig;
  if (!own) {
    if (none) throw invalid('spec.dnsConfig', 'must list nameservers with dnsPolicy: None');
    return {};
  }
  if (none && (own.nameservers ?? []).length === 0) {
    throw invalid('spec.dnsConfig.nameservers', 'must not be empty with dnsPolicy: None');
  }
  const base = none ? { servers: [], searches: [], options: [] } : node;
  const options = new Map(base.options.map((text) => [text.split(':')[0] ?? text, text]));
  for (const { name, value } of own.options ?? []) options.set(name, value ? `${name}:${value}` : name);
  return {
    dns_config: {
      servers: [...new Set([...base.servers, ...(own.nameservers ?? [])])],
      searches: [...new Set([...base.searches, ...(own.searches ?? [])])],
      options: [...options.values()],
    },
  };
}

/** The `nameserver`, `search` and `options` lines of a resolv.conf (resolv.conf(5)). */
export function parseResolvConf(text: string): DnsConfig {
  const dns: DnsConfig = { servers: [], searches: [], options: [] };
  for (const line of text.split('\n')) {
    const [word, ...rest] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (word === 'nameserver' && rest[0] !== undefined) dns.servers.push(rest[0]);
    // Of several search lines the last one counts.
    else if (word === 'search') dns.searches = rest;
    else if (word === 'options') dns.options.push(...rest);
  }
  return dns;
}
