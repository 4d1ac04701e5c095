import type { Capability } from '../../proto/gen/runtime/v1/Capability.ts';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import type { SecurityProfile } from '../../proto/gen/runtime/v1/SecurityProfile.ts';
import type { ContainerConfig as DomainContainer } from '../../src/container/config.ts';
import type {
  SecurityProfile as DomainProfile,
  SandboxConfig as DomainSandbox,
  SandboxSecurity,
} from '../../src/sandbox/config.ts';
import { toImageSpec, toMount, toStopSignal } from './container.ts';
import { toResources } from './resources.ts';
import { toNamespaces } from './security.ts';

/** A pod's configuration as CRI's message, for verbose answers; the inverse of `fromSandboxConfig`. */
export function toSandboxConfig(c: DomainSandbox): PodSandboxConfig {
  return {
    metadata: c.metadata,
    hostname: c.hostname,
    log_directory: c.logDirectory,
    ...(c.dns === undefined ? {} : { dns_config: c.dns }),
    port_mappings: c.portMappings.map((p) => ({
      protocol: p.protocol,
      container_port: p.containerPort,
      host_port: p.hostPort,
      host_ip: p.hostIp,
    })),
    labels: c.labels,
    annotations: c.annotations,
    linux: {
      cgroup_parent: c.cgroupParent,
      security_context: sharedSecurity(c.security),
      sysctls: c.sysctls,
      ...(c.overhead === undefined ? {} : { overhead: toResources(c.overhead, 0n) }),
      ...(c.resources === undefined ? {} : { resources: toResources(c.resources, 0n) }),
    },
  };
}

/** The same for a container. The environment's values are text, as a person reads them. */
export function toContainerConfig(
  c: DomainContainer,
): Omit<ContainerConfig, 'envs'> & { envs: DomainContainer['envs'] } {
  const sc = c.security;
  const capabilities: Capability = {
    add_capabilities: sc.capabilities.add,
    drop_capabilities: sc.capabilities.drop,
    add_ambient_capabilities: sc.capabilities.ambient,
  };
  return {
    metadata: c.metadata,
    image: toImageSpec(c.image),
    command: c.command,
    args: c.args,
    working_dir: c.workingDir,
    envs: c.envs,
    mounts: c.mounts.map((m) => toMount(m, undefined)),
    devices: c.devices.map((d) => ({
      container_path: d.containerPath,
      host_path: d.hostPath,
      permissions: d.permissions,
    })),
    CDI_devices: c.cdiDevices.map((name) => ({ name })),
    labels: c.labels,
    annotations: c.annotations,
    log_path: c.logPath,
    stdin: c.stdin,
    stdin_once: c.stdinOnce,
    tty: c.tty,
    ...(c.stopSignal === undefined ? {} : { stop_signal: toStopSignal(c.stopSignal) }),
    linux: {
      resources: toResources(c.resources, c.oomScoreAdj),
      security_context: {
        ...sharedSecurity(sc),
        capabilities,
        run_as_username: sc.runAsUsername,
        no_new_privs: sc.noNewPrivs,
        masked_paths: sc.maskedPaths,
        readonly_paths: sc.readonlyPaths,
      },
    },
  };
}

/** What pods and containers have in common. */
function sharedSecurity(sc: SandboxSecurity) {
  return {
    namespace_options: toNamespaces(sc.namespaces),
    ...(sc.selinux === undefined ? {} : { selinux_options: sc.selinux }),
    ...(sc.runAsUser === undefined ? {} : { run_as_user: { value: String(sc.runAsUser) } }),
    ...(sc.runAsGroup === undefined ? {} : { run_as_group: { value: String(sc.runAsGroup) } }),
    readonly_rootfs: sc.readonlyRootfs,
    supplemental_groups: sc.supplementalGroups.map(String),
    supplemental_groups_policy:
      sc.supplementalGroupsPolicy === 'strict' ? ('Strict' as const) : ('Merge' as const),
    privileged: sc.privileged,
    seccomp: toProfile(sc.seccomp),
    ...(sc.apparmor === undefined ? {} : { apparmor: toProfile(sc.apparmor) }),
  };
}

function toProfile({ type, localhostRef }: DomainProfile): SecurityProfile {
  const types = {
    runtimeDefault: 'RuntimeDefault',
    unconfined: 'Unconfined',
    localhost: 'Localhost',
  } as const;
  return { profile_type: types[type], localhost_ref: localhostRef };
}
