import { isIP } from 'node:net';
import { invalid } from '../errors.ts';
import type { DnsConfig, PortMapping } from '../sandbox/config.ts';
import { parseBandwidth } from './bandwidth.ts';
import type { JsonObject } from './json.ts';

/** What of a pod plugins may be told through `runtimeConfig`. */
export interface CapabilitySources {
  portMappings: readonly PortMapping[];
  dns?: DnsConfig;
  annotations: Readonly<Record<string, string>>;
  /** The pod's cgroup parent as the kubelet spells it; empty when there is none. */
  cgroupPath: string;
}

/**
 * The capability arguments of a pod, by capability name (CNI CONVENTIONS.md, "Dynamic Plugin specific
 * Fields"). A plugin is given only those that its configuration declares; nothing here is for a plugin
 * by itself.
 * @throws BerthError `invalid`, naming the field of the CRI request
 */
export function capabilityArgs(pod: CapabilitySources): JsonObject {
  const args: JsonObject = {};
  const ports = pod.portMappings.map(portMappingArg).filter((p) => p !== undefined);
  if (ports.length > 0) args.portMappings = ports;
  const bandwidth = parseBandwidth(pod.annotations);
  if (bandwidth !== undefined) args.bandwidth = bandwidth;
  if (pod.dns !== undefined) {
    const { servers, searches, options } = pod.dns;
    args.dns = { servers, searches, options };
  }
  if (pod.cgroupPath !== '') args.cgroupPath = pod.cgroupPath;
  // Not in CONVENTIONS.md: the name under which containerd and CRI-O hand annotations to plugins that ask.
  args['io.kubernetes.cri.pod-annotations'] = pod.annotations;
  return args;
}

/** One entry for portmap, or undefined for a port that is not published on the host. */
function portMappingArg(mapping: PortMapping, index: number): JsonObject | undefined {
  const field = `config.port_mappings[${index}]`;
  const { protocol, containerPort, hostPort, hostIp } = mapping;
  if (!isPort(hostPort, 0)) throw invalid(`${field}.host_port`, `${hostPort} is not a port; use 0 to 65535`);
  // The kubelet lists every declared port; only those with a host port need a mapping.
  if (hostPort === 0) return undefined;
  if (!isPort(containerPort, 1))
    throw invalid(`${field}.container_port`, `${containerPort} is not a port; use 1 to 65535`);
  if (hostIp !== '' && isIP(hostIp) === 0)
    throw invalid(`${field}.host_ip`, 'is not an IP address; leave it empty for all addresses');
  return {
    hostPort,
    containerPort,
    protocol: protocol.toLowerCase(),
    ...(hostIp !== '' && { hostIP: hostIp }),
  };
}

function isPort(value: number, least: 0 | 1): boolean {
  return Number.isInteger(value) && value >= least && value <= 65535;
}
