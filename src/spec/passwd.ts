/** Lines beyond these many are not read: the files come from images, which anyone may have written. */
const MAX_LINES = 65_536;

/** The highest id that OCI runtimes take (runc's user package: 2^31 - 1). */
export const MAX_ID = 0x7fff_ffff;

/** A line of passwd(5). */
export interface PasswdEntry {
  name: string;
  uid: number;
  gid: number;
}

/** A line of group(5). */
export interface GroupEntry {
  name: string;
  gid: number;
  members: string[];
}

/** Comments and lines with ids that are no numbers are left out, as libc's own parser does. */
export function parsePasswd(text: string): PasswdEntry[] {
  const entries: PasswdEntry[] = [];
  for (const [name, , uid, gid] of fields(text)) {
    const u = parseId(uid);
    const g = parseId(gid);
    if (name && u !== undefined && g !== undefined) entries.push({ name, uid: u, gid: g });
  }
  return entries;
}

/** See {@link parsePasswd}. */
export function parseGroup(text: string): GroupEntry[] {
  const entries: GroupEntry[] = [];
  for (const [name, , gid, members] of fields(text)) {
    const g = parseId(gid);
    if (name && g !== undefined) entries.push({ name, gid: g, members: members?.split(',') ?? [] });
  }
  return entries;
}

/** The number of a decimal id in range, else undefined. */
export function parseId(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const id = Number(text);
  return id <= MAX_ID ? id : undefined;
}

function fields(text: string): string[][] {
  return text
    .split('\n', MAX_LINES)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}
