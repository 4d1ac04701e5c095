import type { Int64Value__Output } from '../../proto/gen/runtime/v1/Int64Value.ts';
import type { NamespaceOption, NamespaceOption__Output } from '../../proto/gen/runtime/v1/NamespaceOption.ts';
import type { SELinuxOption__Output } from '../../proto/gen/runtime/v1/SELinuxOption.ts';
import type { SecurityProfile__Output } from '../../proto/gen/runtime/v1/SecurityProfile.ts';
import type { UserNamespace__Output } from '../../proto/gen/runtime/v1/UserNamespace.ts';
import { invalid } from '../../src/errors.ts';
import type {
  IdMapping,
  NamespaceOptions,
  SecurityProfile,
  SelinuxOptions,
} from '../../src/sandbox/config.ts';

/** Namespace modes; an absent message is CRI's default, the pod's namespaces. */
export function fromNamespaces(o: NamespaceOption__Output | null, field: string): NamespaceOptions {
  return {
    network: pick(o?.network ?? 'POD', { POD: 'pod', NODE: 'node' } as const, `${field}.network`),
    pid: pick(
      o?.pid ?? 'POD',
      { POD: 'pod', CONTAINER: 'container', NODE: 'node', TARGET: 'target' } as const,
      `${field}.pid`,
    ),
    ipc: pick(o?.ipc ?? 'POD', { POD: 'pod', NODE: 'node' } as const, `${field}.ipc`),
    targetId: o?.target_id ?? '',
    user: {
      mode: userMode(o?.userns_options ?? null, `${field}.userns_options.mode`),
      uids: (o?.userns_options?.uids ?? []).map(fromIdMapping),
      gids: (o?.userns_options?.gids ?? []).map(fromIdMapping),
    },
  };
}

function userMode(o: UserNamespace__Output | null, field: string): 'pod' | 'node' {
  const mode = pick(o?.mode ?? 'NODE', { POD: 'pod', NODE: 'node' } as const, field);
  // A mode without mappings is what the protocol's zero value looks like: the node's.
  return o !== null && o.uids.length + o.gids.length > 0 ? mode : 'node';
}

export function toNamespaces(o: NamespaceOptions): NamespaceOption {
  return {
    network: o.network === 'pod' ? 'POD' : 'NODE',
    pid: ({ pod: 'POD', container: 'CONTAINER', node: 'NODE', target: 'TARGET' } as const)[o.pid],
    ipc: o.ipc === 'pod' ? 'POD' : 'NODE',
    target_id: o.targetId,
    ...(o.user.uids.length + o.user.gids.length === 0
      ? {}
      : {
          userns_options: {
            mode: o.user.mode === 'pod' ? 'POD' : 'NODE',
            uids: o.user.uids.map(toIdMapping),
            gids: o.user.gids.map(toIdMapping),
          },
        }),
  };
}

export function toIdMapping(m: IdMapping) {
  return { host_id: m.hostId, container_id: m.containerId, length: m.length };
}

export function fromIdMapping(m: { host_id: number; container_id: number; length: number }) {
  return { hostId: m.host_id, containerId: m.container_id, length: m.length };
}

/** The profile, or what its deprecated text form says (`runtime/default`, `unconfined`, `localhost/<ref>`). */
export function fromProfile(
  profile: SecurityProfile__Output | null,
  deprecated: string,
  field: string,
): SecurityProfile {
  if (profile !== null) {
    const type = pick(
      profile.profile_type,
      { RuntimeDefault: 'runtimeDefault', Unconfined: 'unconfined', Localhost: 'localhost' } as const,
      `${field}.profile_type`,
    );
    return { type, localhostRef: profile.localhost_ref };
  }
  if (deprecated === 'runtime/default' || deprecated === 'docker/default')
    return { type: 'runtimeDefault', localhostRef: '' };
  if (deprecated.startsWith('localhost/'))
    return { type: 'localhost', localhostRef: deprecated.slice('localhost/'.length) };
  return { type: 'unconfined', localhostRef: '' };
}

/** Not mentioning AppArmor is another thing than asking for none. */
export function fromApparmor(
  profile: SecurityProfile__Output | null,
  deprecated: string,
  field: string,
): { apparmor?: SecurityProfile } {
  return profile === null && deprecated === '' ? {} : { apparmor: fromProfile(profile, deprecated, field) };
}

export function fromSelinux(o: SELinuxOption__Output | null): { selinux?: SelinuxOptions } {
  return o === null ? {} : { selinux: { user: o.user, role: o.role, type: o.type, level: o.level } };
}

/** The members `run_as_user` and `run_as_group`, left out where absent. */
export function fromRunAs(user: Int64Value__Output | null, group: Int64Value__Output | null) {
  return {
    ...(user === null ? {} : { runAsUser: BigInt(user.value) }),
    ...(group === null ? {} : { runAsGroup: BigInt(group.value) }),
  };
}

export function fromGroupsPolicy(policy: string | number, field: string): 'merge' | 'strict' {
  return pick(policy, { Merge: 'merge', Strict: 'strict' } as const, field);
}

/** An enum's value by name. An unknown number stays a number on the wire. @throws BerthError `invalid` */
export function pick<T extends string>(
  value: string | number,
  names: Readonly<Record<string, T>>,
  field: string,
): T {
  const found = Object.hasOwn(names, value) ? names[value] : undefined;
  if (found === undefined) throw invalid(field, `${value} is none of ${Object.keys(names).join(', ')}`);
  return found;
}
