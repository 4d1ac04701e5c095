import type { Capabilities } from '../container/config.ts';
import { invalid } from '../errors.ts';
import { CAPABILITIES } from '../sys/capabilities.ts';
import type { ProcessCapabilities } from './types.ts';

/** What a container gets unasked: the set of Docker and containerd, which images are built against. */
const DEFAULT = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
];

const FIELD = 'config.linux.security_context.capabilities';

/** No capability in any set. */
export function noCapabilities(): ProcessCapabilities {
  return { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] };
}

/** The names in a hexadecimal mask of /proc/<pid>/status; bits that this table does not know are left out. */
export function capabilitiesOfMask(hex: string): Set<string> {
  const mask = BigInt(`0x${hex}`);
  return new Set(CAPABILITIES.filter((_name, bit) => (mask & (1n << BigInt(bit))) !== 0n));
}

/**
 * The five sets of a container's process.
 *
 * `ALL` in add, then `ALL` in drop, then the single names of add, then those of drop are applied in
 * that order, so that "drop ALL, add X" and "add ALL, drop X" both mean what they say. The result is cut
 * down to what the daemon has itself: granting more fails in the kernel, and a host that withholds a
 * capability from the daemon withholds it from its containers. Ambient ones are added to every set, as
 * the kernel demands of them. The inheritable set is otherwise empty: with it, files with inheritable
 * capabilities would raise what was dropped (CVE-2022-24769).
 */
export function containerCapabilities(
  wanted: Capabilities,
  privileged: boolean,
  hostCaps: ReadonlySet<string>,
): ProcessCapabilities {
  const add = normalise(wanted.add, 'add_capabilities');
  const drop = normalise(wanted.drop, 'drop_capabilities');
  const ambient = normalise(wanted.ambient, 'add_ambient_capabilities');
  let set = new Set(DEFAULT);
  if (privileged || add.includes('ALL')) set = new Set(hostCaps);
  if (!privileged && drop.includes('ALL')) set = new Set();
  for (const name of [...add, ...ambient]) set.add(name);
  if (!privileged) for (const name of drop) set.delete(name);
  const granted = [...set].filter((name) => hostCaps.has(name)).sort();
  const raised = granted.filter((name) => ambient.includes(name));
  return {
    bounding: granted,
    effective: [...granted],
    permitted: [...granted],
    inheritable: raised,
    ambient: [...raised],
  };
}

/** Upper case, with the prefix, except for `ALL`. */
function normalise(names: string[], list: string): string[] {
  return names.map((given, i) => {
    const upper = given.toUpperCase();
    if (upper === 'ALL' && list !== 'add_ambient_capabilities') return upper;
    const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
    if (!CAPABILITIES.includes(name)) {
      throw invalid(`${FIELD}.${list}[${i}]`, `${JSON.stringify(given)} is no capability of Linux`);
    }
    return name;
  });
}
