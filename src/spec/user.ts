import type { ContainerSecurity } from '../container/config.ts';
import { BerthError, invalid } from '../errors.ts';
import { type GroupEntry, MAX_ID, type PasswdEntry, parseGroup, parseId, parsePasswd } from './passwd.ts';
import type { ProcessUser } from './types.ts';

const FIELD = 'config.linux.security_context';

/**
 * Reads a file of the container's root file system, given as an absolute path inside it; undefined when
 * there is none. The reader must not follow links out of the root and must bound the size.
 */
export type ReadRootfsFile = (path: string) => Promise<string | undefined>;

/** Who is asked for, before names are looked up. */
interface WantedUser {
  /** Name or number. */
  user: string;
  /** Name or number; undefined: the user's own group. */
  group: string | undefined;
  /** What to name in errors. */
  field: string;
}

/**
 * The ids that the container's process runs with; the result is also what ContainerStatus.user tells.
 *
 * - The request's user comes before the image's, whose group then counts for nothing.
 * - A number without an entry in the image's passwd has group 0, as with Docker and containerd.
 * - With the policy Merge the groups of which the image's /etc/group names the user a member are added
 *   to the request's, with Strict they are not (CRI, SupplementalGroupsPolicy).
 * - `additionalGids` contains the primary group: without it a process whose group was changed by a
 *   setgid program would pass checks of "not in that group" (CVE-2023-25173).
 */
export async function resolveUser(
  sc: ContainerSecurity,
  imageUser: string,
  readRootfsFile: ReadRootfsFile,
): Promise<ProcessUser> {
  const wanted = wantedUser(sc, imageUser);
  const passwd = parsePasswd((await readRootfsFile('/etc/passwd')) ?? '');
  const entry = findUser(passwd, wanted);
  const merge = sc.supplementalGroupsPolicy === 'merge';
  const groupIsName = wanted.group !== undefined && parseId(wanted.group) === undefined;
  const group =
    groupIsName || (merge && entry.name !== undefined)
      ? parseGroup((await readRootfsFile('/etc/group')) ?? '')
      : [];
  const gid = wanted.group === undefined ? entry.gid : findGroup(group, wanted.group, wanted.field);
  const member = merge ? memberships(group, entry.name) : [];
  const requested = sc.supplementalGroups.map((g, i) => checkId(g, `${FIELD}.supplemental_groups[${i}]`));
  const rest = [...new Set([...member, ...requested])].filter((g) => g !== gid).sort((a, b) => a - b);
  return { uid: entry.uid, gid, additionalGids: [gid, ...rest] };
}

function wantedUser(sc: ContainerSecurity, imageUser: string): WantedUser {
  const group =
    sc.runAsGroup === undefined ? undefined : String(checkId(sc.runAsGroup, `${FIELD}.run_as_group`));
  if (sc.runAsUsername !== '') return { user: sc.runAsUsername, group, field: `${FIELD}.run_as_username` };
  if (sc.runAsUser !== undefined) {
    const field = `${FIELD}.run_as_user`;
    return { user: String(checkId(sc.runAsUser, field)), group, field };
  }
  if (group !== undefined) {
    throw invalid(`${FIELD}.run_as_group`, 'needs run_as_user or run_as_username beside it');
  }
  const [user = '', imageGroup, ...more] = imageUser.split(':');
  const field = `user ${JSON.stringify(imageUser.slice(0, 100))} of the image`;
  if (more.length > 0) throw invalid(field, 'has more than one colon');
  return { user: user || '0', group: imageGroup || undefined, field };
}

function findUser(
  passwd: PasswdEntry[],
  wanted: WantedUser,
): { name: string | undefined; uid: number; gid: number } {
  const uid = numeric(wanted.user, wanted.field);
  if (uid !== undefined) {
    return passwd.find((e) => e.uid === uid) ?? { name: undefined, uid, gid: 0 };
  }
  const entry = passwd.find((e) => e.name === wanted.user);
  if (entry === undefined) throw invalid(wanted.field, "no such user in the image's /etc/passwd");
  return entry;
}

function findGroup(groups: GroupEntry[], wanted: string, field: string): number {
  const gid = numeric(wanted, field) ?? groups.find((g) => g.name === wanted)?.gid;
  if (gid === undefined) throw invalid(field, "no such group in the image's /etc/group");
  return gid;
}

/** The id that digits spell, undefined for a name. */
function numeric(text: string, field: string): number | undefined {
  if (!/^-?\d+$/.test(text)) return undefined;
  const id = parseId(text);
  if (id === undefined) throw invalid(field, `ids are 0 to ${MAX_ID}`);
  return id;
}

function memberships(groups: GroupEntry[], user: string | undefined): number[] {
  if (user === undefined) return [];
  // A group named like the user is its private group: primary, whatever its member list says.
  return groups.filter((g) => g.name !== user && g.members.includes(user)).map((g) => g.gid);
}

/** An id of the protocol (int64) as the specification's (uint32). */
export function checkId(id: bigint, field: string): number {
  if (id < 0n || id > BigInt(MAX_ID)) throw new BerthError('invalid', `${field}: ids are 0 to ${MAX_ID}`);
  return Number(id);
}
