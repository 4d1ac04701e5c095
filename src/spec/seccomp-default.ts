import { ALWAYS, type ProfileRule, type SeccompProfile } from './seccomp.ts';

const ADMIN = 'CAP_SYS_ADMIN';
const EPERM = 1;
const ENOSYS = 38;
const ALLOW = 'SCMP_ACT_ALLOW';
const ERRNO = 'SCMP_ACT_ERRNO';

/** Calls that make or enter namespaces and mounts. */
const NESTING = [
  'fsconfig',
  'fsmount',
  'fsopen',
  'fspick',
  'mount',
  'mount_setattr',
  'move_mount',
  'open_tree',
  'open_tree_attr',
  'pivot_root',
  'setns',
  'umount',
  'umount2',
  'unshare',
];

/** The flags of clone(2) that make namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const NEW_NAMESPACES = [
  0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000,
];

/**
 * The profile of containers-common as Kubernetes' users know RuntimeDefault.
 *
 * It is written for podman, whose containers may nest, and lets anyone make user namespaces, which open much
 * of the kernel to a process without rights (CVE-2022-0185). With containerd and CRI-O that takes
 * CAP_SYS_ADMIN; so here. clone3(2) passes its flags in memory that no filter can read: libc takes ENOSYS for
 * an old kernel and falls back to clone(2).
 */
export function withoutNesting(profile: SeccompProfile): SeccompProfile {
  const ours = new Set([...NESTING, 'clone', 'clone3']);
  const rest = profile.rules
    .map((rule) => ({ ...rule, names: rule.names.filter((name) => !ours.has(name)) }))
    .filter((rule) => rule.names.length > 0);
  return { ...profile, rules: [...rest, ...NESTING_RULES] };
}

const NESTING_RULES: readonly ProfileRule[] = [
  withAdmin({ names: [...NESTING, 'clone', 'clone3'], action: ALLOW }),
  withoutAdmin({ names: NESTING, action: ERRNO, errnoRet: EPERM }),
  withoutAdmin({ names: ['clone3'], action: ERRNO, errnoRet: ENOSYS }),
  ...cloneRules(0, { excludes: ['s390', 's390x'] }),
  // CLONE_BACKWARDS2 of the kernel: there the stack comes first.
  ...cloneRules(1, { includes: ['s390', 's390x'] }),
];

/** clone(2) without a namespace, by the place of the flags among its arguments. */
function cloneRules(index: number, { includes = [], excludes = [] }: Arches): ProfileRule[] {
  const all = NEW_NAMESPACES.reduce((mask, flag) => mask | flag, 0);
  const masked = (value: number, valueTwo: number) => [{ index, value, valueTwo, op: 'SCMP_CMP_MASKED_EQ' }];
  const rules = [
    withoutAdmin({ names: ['clone'], action: ALLOW, args: masked(all, 0) }),
    ...NEW_NAMESPACES.map((flag) =>
      withoutAdmin({ names: ['clone'], action: ERRNO, errnoRet: EPERM, args: masked(flag, flag) }),
    ),
  ];
  return rules.map((rule) => ({
    ...rule,
    includes: { ...rule.includes, arches: includes },
    excludes: { ...rule.excludes, arches: excludes },
  }));
}

interface Arches {
  includes?: string[];
  excludes?: string[];
}

type Rule = Omit<ProfileRule, 'includes' | 'excludes'>;

function withAdmin(rule: Rule): ProfileRule {
  return { ...rule, includes: { ...ALWAYS, caps: [ADMIN] }, excludes: ALWAYS };
}

function withoutAdmin(rule: Rule): ProfileRule {
  return { ...rule, includes: ALWAYS, excludes: { ...ALWAYS, caps: [ADMIN] } };
}
