import { isIP } from 'node:net';
import type { Resources } from '../../cgroups/types.ts';
import { parseCdiName, requestedCdiDevices } from '../cdi/name.ts';
import type { ContainerConfig, ContainerSecurity, Mount } from '../container/config.ts';
import { invalid } from '../errors.ts';
import type {
  DnsConfig,
  NamespaceOptions,
  PortMapping,
  SandboxConfig,
  SecurityProfile,
} from '../sandbox/config.ts';
import { differingFields } from '../util/differing-fields.ts';
import { containerCapabilities } from './capabilities.ts';
import {
  checkAbsolute,
  checkAttempt,
  checkCount,
  checkInside,
  checkMap,
  checkName,
  checkNotNegative,
  checkOptionalName,
  hasControl,
} from './checks.ts';
import { containerMounts } from './mounts.ts';
import { podSysctls } from './sysctl.ts';
import { checkId } from './user.ts';
import { checkMappings, checkUserNamespace } from './user-namespace.ts';

const SECURITY = 'linux.security_context';

/**
 * Refuses a RunPodSandbox request that can be seen to be wrong without looking at the host, before
 * anything is made for it. Errors are `invalid` and name the field as the protocol spells it; what is
 * right but not built is `unimplemented`. `root` is the name of the message in the request.
 */
export function validateSandboxConfig(config: SandboxConfig, root = 'config'): void {
  const { metadata, security } = config;
  checkName(metadata.name, `${root}.metadata.name`);
  checkName(metadata.namespace, `${root}.metadata.namespace`);
  checkOptionalName(metadata.uid, `${root}.metadata.uid`);
  checkAttempt(metadata.attempt, `${root}.metadata.attempt`);
  checkHostname(config.hostname, `${root}.hostname`);
  if (config.logDirectory !== '') checkAbsolute(config.logDirectory, `${root}.log_directory`);
  if (config.dns !== undefined) checkDns(config.dns, `${root}.dns_config`);
  checkCount(config.portMappings.length, 4096, `${root}.port_mappings`);
  config.portMappings.forEach((p, i) => {
    checkPort(p, `${root}.port_mappings[${i}]`);
  });
  checkMap(config.labels, `${root}.labels`);
  checkMap(config.annotations, `${root}.annotations`);
  checkInside(config.cgroupParent, `${root}.linux.cgroup_parent`);
  const field = `${root}.${SECURITY}`;
  checkNamespaces(security.namespaces, `${field}.namespace_options`);
  checkIds(security.runAsUser, security.runAsGroup, '', field);
  checkGroups(security.supplementalGroups, field);
  checkProfile(security.seccomp, `${field}.seccomp`, true);
  if (security.apparmor !== undefined) checkProfile(security.apparmor, `${field}.apparmor`, false);
  podSysctls(config);
  checkResources(config.overhead ?? {}, `${root}.linux.overhead`);
  checkResources(config.resources ?? {}, `${root}.linux.resources`);
}

/**
 * Refuses a CreateContainer request that can be seen to be wrong from itself and from its sandbox's
 * configuration; errors as with {@link validateSandboxConfig}.
 */
export function validateContainerConfig(config: ContainerConfig, sandbox: SandboxConfig): void {
  const sc = config.security;
  checkName(config.metadata.name, 'config.metadata.name');
  checkAttempt(config.metadata.attempt, 'config.metadata.attempt');
  if (config.image.image === '') throw invalid('config.image.image', 'must not be empty');
  checkLogPath(config.logPath);
  checkMap(config.labels, 'config.labels');
  checkMap(config.annotations, 'config.annotations');
  for (const { name, field } of requestedCdiDevices(config)) parseCdiName(name, field);
  checkCount(config.envs.length, 65_536, 'config.envs');
  checkCount(config.mounts.length, 4096, 'config.mounts');
  checkCount(config.devices.length, 4096, 'config.devices');
  checkMounts(config);
  checkOomScoreAdj(config.oomScoreAdj, 'config.linux.resources.oom_score_adj');
  checkResources(config.resources, 'config.linux.resources');
  checkSecurity(sc, sandbox);
}

/** The range of proc_pid_oom_score_adj(5). @throws BerthError `invalid` */
export function checkOomScoreAdj(score: bigint, field: string): void {
  if (score < -1000n || score > 1000n) throw invalid(field, `must be -1000 to 1000; is ${score}`);
}

/** Also of UpdateContainerResources, whose root is `linux`. Every negative number is refused but "unlimited". */
export function checkResources(r: Resources, root: string): void {
  checkNotNegative(r.cpuPeriod, `${root}.cpu_period`);
  checkNotNegative(r.cpuQuota, `${root}.cpu_quota`, -1n);
  checkNotNegative(r.cpuShares, `${root}.cpu_shares`);
  checkNotNegative(r.memoryLimitBytes, `${root}.memory_limit_in_bytes`, -1n);
  checkNotNegative(r.memorySwapLimitBytes, `${root}.memory_swap_limit_in_bytes`, -1n);
  if (
    positive(r.memorySwapLimitBytes) &&
    positive(r.memoryLimitBytes) &&
    r.memorySwapLimitBytes < r.memoryLimitBytes
  ) {
    throw invalid(
      `${root}.memory_swap_limit_in_bytes`,
      'counts memory and swap, so it cannot be below the memory limit',
    );
  }
  checkCpuList(r.cpusetCpus ?? '', `${root}.cpuset_cpus`);
  checkCpuList(r.cpusetMems ?? '', `${root}.cpuset_mems`);
  (r.hugepageLimits ?? []).forEach(({ pageSize, limitBytes }, i) => {
    const field = `${root}.hugepage_limits[${i}]`;
    if (!/^\d+[KMG]B$/.test(pageSize)) throw invalid(`${field}.page_size`, 'must be spelled like 2MB');
    checkNotNegative(limitBytes, `${field}.limit`);
  });
  for (const name of Object.keys(r.unified ?? {})) {
    // It becomes the name of a file in the container's cgroup; cgroup.* act on processes and on the tree.
    if (!/^[a-z0-9_]+(\.[A-Za-z0-9_]+)+$/.test(name) || name.startsWith('cgroup.')) {
      throw invalid(`${root}.unified`, `${JSON.stringify(name.slice(0, 100))} is no limit of a cgroup`);
    }
  }
}

function positive(limit: bigint | undefined): limit is bigint {
  return limit !== undefined && limit > 0n;
}

function checkCpuList(list: string, field: string): void {
  if (list !== '' && !/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(list)) {
    throw invalid(field, 'must be a list such as 0-3,8');
  }
}

function checkHostname(hostname: string, field: string): void {
  // sethostname(2) takes 64 bytes; anything but these characters would break resolvers and /etc/hosts.
  if (hostname !== '' && !/^[A-Za-z0-9._-]{1,64}$/.test(hostname)) {
    throw invalid(field, 'must have 1 to 64 letters, digits, dots, hyphens or underscores');
  }
}

function checkDns(dns: DnsConfig, root: string): void {
  dns.servers.forEach((server, i) => {
    // The zone of a link-local address (`fe80::1%eth0`) is part of the text.
    if (isIP(server) === 0) throw invalid(`${root}.servers[${i}]`, 'must be an IP address');
  });
  const words = { searches: dns.searches, options: dns.options };
  for (const [name, list] of Object.entries(words)) {
    checkCount(list.length, 256, `${root}.${name}`);
    list.forEach((word, i) => {
      const field = `${root}.${name}[${i}]`;
      if (word === '' || hasControl(word) || /\s/.test(word)) {
        throw invalid(field, 'must be one word without spaces or control characters');
      }
    });
  }
}

function checkPort(p: PortMapping, field: string): void {
  const isPort = (n: number): boolean => Number.isInteger(n) && n >= 0 && n <= 65_535;
  if (!isPort(p.containerPort) || (p.containerPort === 0 && p.hostPort !== 0)) {
    throw invalid(`${field}.container_port`, 'must be 1 to 65535');
  }
  if (!isPort(p.hostPort)) throw invalid(`${field}.host_port`, 'must be 0 to 65535');
  if (p.hostIp !== '' && isIP(p.hostIp) === 0) throw invalid(`${field}.host_ip`, 'must be an IP address');
}

function checkNamespaces(n: NamespaceOptions, field: string): void {
  checkUserNamespace(n, `${field}.userns_options`);
  if (n.pid === 'target') throw invalid(`${field}.pid`, 'TARGET is for containers only');
}

/** The kubelet's rule: a group alone would leave open whose group it replaces. */
function checkIds(
  user: bigint | undefined,
  group: bigint | undefined,
  username: string,
  field: string,
): void {
  if (user !== undefined) checkId(user, `${field}.run_as_user`);
  if (group !== undefined) checkId(group, `${field}.run_as_group`);
  if (user !== undefined && username !== '') {
    throw invalid(`${field}.run_as_username`, 'excludes run_as_user');
  }
  if (group !== undefined && user === undefined && username === '') {
    throw invalid(`${field}.run_as_group`, 'needs run_as_user or run_as_username beside it');
  }
}

function checkGroups(groups: bigint[], field: string): void {
  // NGROUPS_MAX of the kernel.
  checkCount(groups.length, 65_536, `${field}.supplemental_groups`);
  groups.forEach((g, i) => {
    checkId(g, `${field}.supplemental_groups[${i}]`);
  });
}

function checkProfile(profile: SecurityProfile, field: string, isPath: boolean): void {
  const ref = `${field}.localhost_ref`;
  if (profile.type !== 'localhost') {
    if (profile.localhostRef !== '') throw invalid(ref, 'is for profiles of type Localhost only');
    return;
  }
  if (profile.localhostRef === '') throw invalid(ref, 'must not be empty with a profile of type Localhost');
  if (isPath) checkAbsolute(profile.localhostRef, ref);
}

function checkLogPath(path: string): void {
  if (path === '') return;
  const field = 'config.log_path';
  if (path.startsWith('/')) throw invalid(field, 'must be relative to log_directory of the sandbox');
  checkInside(path, field);
  if (/(^|\/)\.?$/.test(path)) throw invalid(field, 'must name a file');
}

/** The builder's own checks, run early; whether the kernel knows recursive read-only mounts is its to say. */
/** A mount's owners can be mapped for a pod with a user namespace only, both users and groups or neither. */
function checkOwners(m: Mount, mode: 'pod' | 'node', field: string): void {
  if (m.uidMappings.length + m.gidMappings.length === 0) return;
  if (mode === 'node') throw invalid(`${field}.uidMappings`, 'needs a pod with a user namespace');
  checkMappings(m.uidMappings, `${field}.uidMappings`);
  checkMappings(m.gidMappings, `${field}.gidMappings`);
}

function checkMounts(config: ContainerConfig): void {
  // The daemon fills in where an image is mounted; until then the builder would miss the host path.
  const mounts = config.mounts.map((m) => (m.image === undefined ? m : { ...m, hostPath: '/' }));
  containerMounts(mounts, {}, { privileged: false, privilegedPod: false, cgroupOptions: [] }, false, {});
  config.mounts.forEach((m, i) => {
    const field = `config.mounts[${i}]`;
    if (m.image !== undefined && m.hostPath !== '') throw invalid(`${field}.host_path`, 'excludes image');
    checkOwners(m, config.security.namespaces.user.mode, field);
    checkInside(m.imageSubPath, `${field}.image_sub_path`);
    if (m.imageSubPath.startsWith('/')) throw invalid(`${field}.image_sub_path`, 'must be relative');
  });
}

function checkSecurity(sc: ContainerSecurity, sandbox: SandboxConfig): void {
  const field = `config.${SECURITY}`;
  if (sc.privileged && !sandbox.security.privileged) {
    throw invalid(`${field}.privileged`, 'needs a sandbox that was made privileged');
  }
  if (differingFields(sandbox.security.namespaces.user, sc.namespaces.user).length > 0) {
    throw invalid(`${field}.namespace_options.userns_options`, "must be the sandbox's");
  }
  if (sc.namespaces.pid === 'pod' && sandbox.security.namespaces.pid === 'container') {
    throw invalid(`${field}.namespace_options.pid`, 'cannot be POD: the sandbox was made with CONTAINER');
  }
  if (sc.namespaces.pid === 'target' && sc.namespaces.targetId === '') {
    throw invalid(`${field}.namespace_options.target_id`, 'must not be empty with PID namespace mode TARGET');
  }
  checkIds(sc.runAsUser, sc.runAsGroup, sc.runAsUsername, field);
  if (/[:\n\0]/.test(sc.runAsUsername)) throw invalid(`${field}.run_as_username`, 'must be a single name');
  checkGroups(sc.supplementalGroups, field);
  checkProfile(sc.seccomp, `${field}.seccomp`, true);
  if (sc.apparmor !== undefined) checkProfile(sc.apparmor, `${field}.apparmor`, false);
  containerCapabilities(sc.capabilities, sc.privileged, new Set());
  const lists = { masked_paths: sc.maskedPaths, readonly_paths: sc.readonlyPaths };
  for (const [name, paths] of Object.entries(lists)) {
    checkCount(paths.length, 4096, `${field}.${name}`);
    paths.forEach((path, i) => {
      checkAbsolute(path, `${field}.${name}[${i}]`);
    });
  }
}
