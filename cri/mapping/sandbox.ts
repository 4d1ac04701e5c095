import type { PodSandbox } from '../../proto/gen/runtime/v1/PodSandbox.ts';
import type { PodSandboxConfig__Output } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import type { PodSandboxStatus } from '../../proto/gen/runtime/v1/PodSandboxStatus.ts';
import { invalid } from '../../src/errors.ts';
import type { SandboxConfig, SandboxSecurity } from '../../src/sandbox/config.ts';
import { isReady, type SandboxRecord } from '../../src/sandbox/record.ts';
import { fromResources } from './resources.ts';
import {
  fromApparmor,
  fromGroupsPolicy,
  fromNamespaces,
  fromProfile,
  fromRunAs,
  fromSelinux,
  pick,
  toNamespaces,
} from './security.ts';

/** @throws BerthError `invalid` naming the field that is missing or no value of its enum. */
export function fromSandboxConfig(config: PodSandboxConfig__Output | null): SandboxConfig {
  if (config === null) throw invalid('config', 'is required');
  if (config.metadata === null) throw invalid('config.metadata', 'is required');
  const { name, uid, namespace, attempt } = config.metadata;
  const linux = config.linux;
  const dns = config.dns_config;
  return {
    metadata: { name, uid, namespace, attempt },
    hostname: config.hostname,
    logDirectory: config.log_directory,
    ...(dns === null ? {} : { dns: { servers: dns.servers, searches: dns.searches, options: dns.options } }),
    portMappings: config.port_mappings.map((p, i) => ({
      protocol: pick(
        p.protocol,
        { TCP: 'TCP', UDP: 'UDP', SCTP: 'SCTP' } as const,
        `config.port_mappings[${i}].protocol`,
      ),
      containerPort: p.container_port,
      hostPort: p.host_port,
      hostIp: p.host_ip,
    })),
    labels: config.labels,
    annotations: config.annotations,
    cgroupParent: linux?.cgroup_parent ?? '',
    sysctls: linux?.sysctls ?? {},
    security: fromSandboxSecurity(config),
    ...(linux?.overhead ? { overhead: fromResources(linux.overhead) } : {}),
    ...(linux?.resources ? { resources: fromResources(linux.resources) } : {}),
  };
}

function fromSandboxSecurity(config: PodSandboxConfig__Output): SandboxSecurity {
  const sc = config.linux?.security_context ?? null;
  const field = 'config.linux.security_context';
  return {
    namespaces: fromNamespaces(sc?.namespace_options ?? null, `${field}.namespace_options`),
    ...fromSelinux(sc?.selinux_options ?? null),
    ...fromRunAs(sc?.run_as_user ?? null, sc?.run_as_group ?? null),
    readonlyRootfs: sc?.readonly_rootfs ?? false,
    supplementalGroups: (sc?.supplemental_groups ?? []).map(BigInt),
    supplementalGroupsPolicy: fromGroupsPolicy(
      sc?.supplemental_groups_policy ?? 'Merge',
      `${field}.supplemental_groups_policy`,
    ),
    privileged: sc?.privileged ?? false,
    seccomp: fromProfile(sc?.seccomp ?? null, sc?.seccomp_profile_path ?? '', `${field}.seccomp`),
    ...fromApparmor(sc?.apparmor ?? null, '', `${field}.apparmor`),
  };
}

/** The item of a list. */
export function toPodSandbox(sandbox: SandboxRecord): PodSandbox {
  return {
    id: sandbox.id,
    metadata: sandbox.config.metadata,
    state: isReady(sandbox) ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY',
    created_at: String(sandbox.createdAt),
    labels: sandbox.config.labels,
    annotations: sandbox.config.annotations,
    runtime_handler: sandbox.runtimeHandler,
  };
}

export function toPodSandboxStatus(sandbox: SandboxRecord): PodSandboxStatus {
  const [ip = '', ...more] = sandbox.ips;
  return {
    ...toPodSandbox(sandbox),
    network: { ip, additional_ips: more.map((address) => ({ ip: address })) },
    linux: { namespaces: { options: toNamespaces(sandbox.config.security.namespaces) } },
  };
}
