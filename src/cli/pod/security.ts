import path from 'node:path';
import { invalid } from '../../errors.ts';
import type { Pod, PodContainer, SecurityProfileSpec } from './schema.ts';

/** Where `localhostProfile` of a seccomp profile is looked for: the kubelet's folder, so that pods move. */
const SECCOMP_PROFILES = '/var/lib/kubelet/seccomp';

/** What Kubernetes hides of /proc and /sys from containers whose `procMount` is Default. */
const MASKED_PATHS = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** `LinuxSandboxSecurityContext` of the pod. */
export function sandboxSecurity(pod: Pod) {
  const context = pod.spec.securityContext;
  return {
    namespace_options: namespaceOptions(pod),
    // The pause process is berth's own program; it gets the default filter whatever its pod asks for.
    seccomp: { profile_type: 'RuntimeDefault' as const },
    supplemental_groups: supplementalGroups(pod),
    ...groupsPolicy(pod),
    ...(context?.seLinuxOptions && { selinux_options: selinux(context.seLinuxOptions) }),
    ...int64('run_as_user', context?.runAsUser),
    ...int64('run_as_group', context?.runAsGroup),
    privileged: [...(pod.spec.initContainers ?? []), ...pod.spec.containers].some(
      (c) => c.securityContext?.privileged === true,
    ),
  };
}

/**
 * `LinuxContainerSecurityContext` of one container, in which the container's own settings precede the
 * pod's. Without a seccomp profile a container gets RuntimeDefault, as from a kubelet with
 * `seccompDefault: true`.
 *
 * @param field path of the container, for errors
 * @throws BerthError invalid
 */
export function containerSecurity(pod: Pod, container: PodContainer, field: string) {
  const [own, shared] = [container.securityContext, pod.spec.securityContext];
  const privileged = own?.privileged === true;
  if (privileged && own?.allowPrivilegeEscalation === false) {
    throw invalid(`${field}.securityContext`, 'allowPrivilegeEscalation: false contradicts privileged: true');
  }
  const [selinuxOptions, appArmor] = [
    own?.seLinuxOptions ?? shared?.seLinuxOptions,
    own?.appArmorProfile ?? shared?.appArmorProfile,
  ];
  const bare = privileged || own?.procMount === 'Unmasked';
  const user = own?.runAsUser ?? shared?.runAsUser;
  return {
    namespace_options: namespaceOptions(pod),
    privileged,
    capabilities: {
      add_capabilities: own?.capabilities?.add ?? [],
      drop_capabilities: own?.capabilities?.drop ?? [],
    },
    no_new_privs: own?.allowPrivilegeEscalation === false,
    readonly_rootfs: own?.readOnlyRootFilesystem === true,
    masked_paths: bare ? [] : MASKED_PATHS,
    readonly_paths: bare ? [] : READONLY_PATHS,
    seccomp: seccomp(
      own?.seccompProfile ?? shared?.seccompProfile,
      privileged,
      `${field}.securityContext.seccompProfile`,
    ),
    ...(appArmor && { apparmor: apparmor(appArmor, `${field}.securityContext.appArmorProfile`) }),
    ...(selinuxOptions && { selinux_options: selinux(selinuxOptions) }),
    supplemental_groups: supplementalGroups(pod),
    ...groupsPolicy(pod),
    ...int64('run_as_user', user),
    ...int64('run_as_group', own?.runAsGroup ?? shared?.runAsGroup),
  };
}

/**
 * Refuses a container that must not run as root and would.
 *
 * @param image who the image says it runs as; `uid` undefined when it does not say or says a name
 * @throws BerthError invalid
 */
export function checkNonRoot(
  pod: Pod,
  container: PodContainer,
  image: { uid: string | undefined; username: string },
): void {
  const [own, shared] = [container.securityContext, pod.spec.securityContext];
  if ((own?.runAsNonRoot ?? shared?.runAsNonRoot) !== true) return;
  const field = `container ${container.name}: securityContext.runAsNonRoot`;
  const asked = own?.runAsUser ?? shared?.runAsUser;
  if (asked === 0) throw invalid(field, 'runAsUser is 0, which is root');
  if (asked !== null && asked !== undefined) return;
  if (image.username !== '') {
    throw invalid(field, `the image's user ${image.username} is a name; set runAsUser to its number`);
  }
  if (image.uid === undefined || image.uid === '0') {
    throw invalid(field, `the image runs as root; set runAsUser`);
  }
}

function namespaceOptions(pod: Pod) {
  const { hostNetwork, hostPID, hostIPC, shareProcessNamespace } = pod.spec;
  if (hostPID && shareProcessNamespace) {
    throw invalid('spec.shareProcessNamespace', 'contradicts hostPID: true');
  }
  const pid: 'NODE' | 'POD' | 'CONTAINER' = hostPID ? 'NODE' : shareProcessNamespace ? 'POD' : 'CONTAINER';
  return {
    network: hostNetwork ? ('NODE' as const) : ('POD' as const),
    pid,
    ipc: hostIPC ? ('NODE' as const) : ('POD' as const),
  };
}

/** fsGroup is a group of every process of the pod; that is how they may use its volumes. */
function supplementalGroups(pod: Pod): string[] {
  const context = pod.spec.securityContext;
  const groups = [...(context?.supplementalGroups ?? [])];
  if (context?.fsGroup !== null && context?.fsGroup !== undefined) groups.push(context.fsGroup);
  return [...new Set(groups)].map(String);
}

/** Only when asked for: servers older than the field reject nothing, but would not honour it either. */
function groupsPolicy(pod: Pod) {
  const strict = pod.spec.securityContext?.supplementalGroupsPolicy === 'Strict';
  return strict ? { supplemental_groups_policy: 'Strict' as const } : {};
}

function int64<K extends string>(key: K, value: number | null | undefined) {
  return value === null || value === undefined ? {} : { [key]: { value: String(value) } };
}

function selinux(options: {
  user?: string | null | undefined;
  role?: string | null | undefined;
  type?: string | null | undefined;
  level?: string | null | undefined;
}) {
  const { user, role, type, level } = options;
  return { user: user ?? '', role: role ?? '', type: type ?? '', level: level ?? '' };
}

function seccomp(profile: SecurityProfileSpec | null | undefined, privileged: boolean, field: string) {
  if (privileged || profile?.type === 'Unconfined') return { profile_type: 'Unconfined' as const };
  if (profile?.type !== 'Localhost') return { profile_type: 'RuntimeDefault' as const };
  const name = localhostName(profile, field);
  const file = path.resolve(SECCOMP_PROFILES, name);
  if (path.isAbsolute(name) || !file.startsWith(`${SECCOMP_PROFILES}/`)) {
    throw invalid(`${field}.localhostProfile`, `must be a path below ${SECCOMP_PROFILES}`);
  }
  return { profile_type: 'Localhost' as const, localhost_ref: file };
}

function apparmor(profile: SecurityProfileSpec, field: string) {
  if (profile.type !== 'Localhost') return { profile_type: profile.type };
  return { profile_type: 'Localhost' as const, localhost_ref: localhostName(profile, field) };
}

function localhostName(profile: SecurityProfileSpec, field: string): string {
  if (profile.localhostProfile) return profile.localhostProfile;
  throw invalid(`${field}.localhostProfile`, 'must be set with type: Localhost');
}
