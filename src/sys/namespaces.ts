import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statfsSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '../errors.ts';
import { check, declare } from './libc.ts';
import { bindMount, listMounts, MS_BIND, MS_PRIVATE, MS_SHARED, mount, unmount } from './mount.ts';

/** The namespaces that a pod pins as files; the names are those in `/proc/<pid>/ns`. */
export type NamespaceKind = 'net' | 'uts' | 'ipc';

const CLONE_FLAGS: Readonly<Record<NamespaceKind, number>> = {
  uts: 0x04000000,
  ipc: 0x08000000,
  net: 0x40000000,
};

const NSFS_MAGIC = 0x6e736673;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
const IFREQ_SIZE = 40;
const IFREQ_FLAGS = 16;

const cUnshare = declare<[number]>('unshare', ['int']);
const cSetns = declare<[number, number]>('setns', ['int', 'int']);
const cSethostname = declare<[Buffer, number]>('sethostname', ['const void *', 'size_t']);
const cSocket = declare<[number, number, number]>('socket', ['int', 'int', 'int']);
const cIoctl = declare<[number, number, Buffer]>('ioctl', ['int', 'ulong', 'void *']);

/**
 * Makes `dir` a mount of its own for pins: a bind mount on itself, in a peer group of its own. Repeatable.
 *
 * Where `/run` is shared, as systemd makes it, two things go wrong without this. Pins would propagate
 * into every mount namespace that has `/run` as its peer or slave. And a bind mount of `dir` on itself
 * joins the group of its parent, so that each pin also appears under the parent: twice in mountinfo, and
 * the hidden one stays. Private first leaves that group; shared afterwards starts a new one, so that a
 * pod which mounts this directory (a CNI agent with HostToContainer propagation) sees pins come and go.
 *
 * @throws SyscallError
 */
export function prepareNamespaceDir(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const mounts = listMounts();
  const own = mounts.findLast((m) => m.mountpoint === dir);
  if (own === undefined) {
    bindMount(dir, dir);
  } else {
    // Doing it again would cut off those who already follow this group.
    const parent = mounts.find((m) => m.id === own.parentId);
    const group = own.propagation.find((p) => p.startsWith('shared:'));
    if (group !== undefined && !parent?.propagation.includes(group)) return;
  }
  mount(null, dir, null, MS_PRIVATE);
  mount(null, dir, null, MS_SHARED);
}

/** Undoes `prepareNamespaceDir`, unless mounts are in it, and removes the directory when it is empty. Repeatable. */
export function releaseNamespaceDir(dir: string): void {
  if (listMounts(dir).some(({ mountpoint }) => mountpoint !== dir)) return;
  unmount(dir, { lazy: true });
  removeDirectory(dir);
}

/**
 * Makes new namespaces of these kinds and pins each as the file `dir/<kind>`, then goes back. Inside,
 * before the pins, `lo` is set up when a network namespace is among them, and `init` may set a host name
 * or sysctls through /proc/sys. When a step fails, nothing stays behind.
 *
 * Everything is synchronous on one thread: namespaces belong to threads, so nothing may be awaited
 * between leaving and coming back. `init` must not start asynchronous work either: libuv's threads, if
 * started by it, would stay in the new namespaces. Three kinds take about a millisecond.
 *
 * @throws SyscallError; EEXIST when a pin is already there; TypeError when `init` answers a promise
 */
export function pinNamespaces(dir: string, kinds: readonly NamespaceKind[], init?: () => void): void {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const flags = kinds.reduce((all, kind) => all | CLONE_FLAGS[kind], 0);
  const pinned: string[] = [];
  try {
    insideOthers(
      kinds,
      () => check('unshare', cUnshare(flags)),
      () => {
        if (kinds.includes('net')) bringUp('lo');
        const answer: unknown = init?.();
        for (const kind of kinds) {
          const pin = join(dir, kind);
          closeSync(openSync(pin, 'wx', 0o444));
          pinned.push(pin);
          mount(`/proc/thread-self/ns/${kind}`, pin, null, MS_BIND);
        }
        return answer;
      },
    );
  } catch (e: unknown) {
    for (const pin of pinned) removePin(pin);
    throw e;
  }
}

/**
 * Removes every pin in `dir` and `dir` itself. The namespaces end when their last process is gone too.
 * Repeatable; files that are no pins (left by a reboot or a crash half-way) go as well.
 *
 * @throws SyscallError, or Node's system error
 */
export function unpinNamespaces(dir: string): void {
  let names: string[];
  try {
    names = readdirSync(dir);
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT')) return;
    throw e;
  }
  for (const name of names) if (name in CLONE_FLAGS || name === 'user') removePin(join(dir, name));
  removeDirectory(dir);
}

/**
 * Runs `use` inside the namespace that `path` names (a pin or `/proc/<pid>/ns/<kind>`) and comes back.
 * `use` must be synchronous, for the reasons given at `pinNamespaces`: it reads
 * `/proc/thread-self/net`, makes a socket (which stays in the namespace), or spawns a process.
 *
 * @throws SyscallError EINVAL when `path` is no namespace of that kind; TypeError when `use` answers a promise
 */
export function withNamespace<T>(path: string, kind: NamespaceKind, use: () => T): T {
  const fd = openSync(path, 'r');
  try {
    return insideOthers([kind], () => check('setns', cSetns(fd, CLONE_FLAGS[kind]), path), use);
  } finally {
    closeSync(fd);
  }
}

/**
 * The inode that identifies the namespace `path` names, equal for two paths of one namespace.
 * Undefined when the path is absent or is no namespace, as a pin's file is after its mount has gone.
 */
export function namespaceInode(path: string): bigint | undefined {
  try {
    if (statfsSync(path).type !== NSFS_MAGIC) return undefined;
    return statSync(path, { bigint: true }).ino;
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ESRCH')) return undefined;
    throw e;
  }
}

/** Counters of one network interface since it was made. */
export interface InterfaceCounters {
  name: string;
  rxBytes: bigint;
  rxPackets: bigint;
  rxErrors: bigint;
  rxDropped: bigint;
  txBytes: bigint;
  txPackets: bigint;
  txErrors: bigint;
  txDropped: bigint;
}

/** The counters of every interface in a network namespace. */
export function readNetDev(netns: string): InterfaceCounters[] {
  return parseNetDev(withNamespace(netns, 'net', () => readFileSync('/proc/thread-self/net/dev', 'latin1')));
}

/** Parses `/proc/net/dev` (proc_pid_net(5)); lines without its 16 numbers are left out. */
export function parseNetDev(text: string): InterfaceCounters[] {
  const interfaces: InterfaceCounters[] = [];
  for (const line of text.split('\n')) {
    // An alias's name may hold a colon, so the counters start after the last one.
    const colon = line.lastIndexOf(':');
    const fields = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/);
    if (colon < 0 || fields.length < 16 || !fields.every((f) => /^\d+$/.test(f))) continue;
    const at = (i: number): bigint => BigInt(fields[i] ?? 0);
    interfaces.push({
      name: line.slice(0, colon).trim(),
      rxBytes: at(0),
      rxPackets: at(1),
      rxErrors: at(2),
      rxDropped: at(3),
      txBytes: at(8),
      txPackets: at(9),
      txErrors: at(10),
      txDropped: at(11),
    });
  }
  return interfaces;
}

/** sethostname(2) in the UTS namespace of this thread: for `init` of `pinNamespaces`. @throws SyscallError */
export function setHostname(name: string): void {
  const bytes = Buffer.from(name);
  check('sethostname', cSethostname(bytes, bytes.length));
}

/**
 * `enter`s other namespaces of these kinds, runs `use`, and returns this thread to the ones it had.
 * If it cannot return, the process aborts: going on would serve the host from inside a pod.
 */
function insideOthers<T>(kinds: readonly NamespaceKind[], enter: () => void, use: () => T): T {
  const homes: { kind: NamespaceKind; fd: number }[] = [];
  try {
    for (const kind of kinds) homes.push({ kind, fd: openSync(`/proc/thread-self/ns/${kind}`, 'r') });
    enter();
    let answer: T;
    try {
      answer = use();
    } finally {
      for (const { kind, fd } of homes) goHome(kind, fd);
    }
    if (isThenable(answer)) throw new TypeError('a function run in another namespace must be synchronous');
    return answer;
  } finally {
    for (const { fd } of homes) closeSync(fd);
  }
}

function goHome(kind: NamespaceKind, fd: number): void {
  try {
    check('setns', cSetns(fd, CLONE_FLAGS[kind]), kind);
  } catch (e: unknown) {
    process.stderr.write(
      `cannot return to the host's ${kind} namespace: ${e instanceof Error ? e.message : e}\n`,
    );
    process.abort();
  }
}

function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

/** Sets IFF_UP by SIOCSIFFLAGS (netdevice(7)) in the network namespace of this thread. @throws SyscallError */
export function bringUp(name: string): void {
  const ifreq = Buffer.alloc(IFREQ_SIZE);
  ifreq.write(name);
  const fd = check('socket', cSocket(AF_INET, SOCK_DGRAM_CLOEXEC, 0));
  try {
    check('ioctl', cIoctl(fd, SIOCGIFFLAGS, ifreq), name);
    ifreq.writeUInt16LE(ifreq.readUInt16LE(IFREQ_FLAGS) | IFF_UP, IFREQ_FLAGS);
    check('ioctl', cIoctl(fd, SIOCSIFFLAGS, ifreq), name);
  } finally {
    closeSync(fd);
  }
}

/** Detached, not plainly unmounted: a process that still has the file open must not block the removal. */
function removePin(pin: string): void {
  unmount(pin, { lazy: true });
  try {
    unlinkSync(pin);
  } catch (e: unknown) {
    if (!isErrno(e, 'ENOENT')) throw e;
  }
}

function removeDirectory(dir: string): void {
  try {
    rmdirSync(dir);
  } catch (e: unknown) {
    if (!isErrno(e, 'ENOENT', 'ENOTEMPTY')) throw e;
  }
}
