import {
  MS_BIND,
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_RELATIME,
  MS_REMOUNT,
  mount,
} from './mount.ts';

/** Options of mount(8) that are flags of mount(2); all others are the file system's. */
const FLAGS: ReadonlyMap<string, number> = new Map([
  ['defaults', 0],
  ['rw', 0],
  ['ro', MS_RDONLY],
  ['nosuid', MS_NOSUID],
  ['nodev', MS_NODEV],
  ['noexec', MS_NOEXEC],
  ['noatime', MS_NOATIME],
  ['nodiratime', MS_NODIRATIME],
  ['relatime', MS_RELATIME],
  ['bind', MS_BIND],
  ['rbind', MS_BIND | MS_REC],
]);

/** One mount as mount(8) and OCI specs have it. */
export interface MountRequest {
  source: string;
  target: string;
  /** `bind` makes a bind mount, as the option of that name does. */
  type: string;
  options: readonly string[];
}

/** Mounts. @throws SyscallError */
export function mountWithOptions({ source, target, type, options }: MountRequest): void {
  const { flags, data } = mountOptions(type === 'bind' ? ['bind', ...options] : options);
  const isBind = (flags & MS_BIND) !== 0;
  mount(source, target, isBind ? null : type, flags, data);
  // Every other flag of a bind is ignored until it is mounted again.
  if (isBind && (flags & ~(MS_BIND | MS_REC)) !== 0) {
    mount(null, target, null, (flags & ~MS_REC) | MS_REMOUNT);
  }
}

/** Flags of mount(2), and what the file system is told. */
export function mountOptions(options: readonly string[]): { flags: number; data: string } {
  const flags = options.reduce((sum, option) => sum | (FLAGS.get(option) ?? 0), 0);
  return { flags, data: options.filter((option) => !FLAGS.has(option)).join(',') };
}
