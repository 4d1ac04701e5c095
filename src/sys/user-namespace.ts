import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BerthError, isErrno } from '../errors.ts';
import { inheritedEnvironment } from './exec.ts';
import { MS_BIND, mount } from './mount.ts';
import { bringUp, type NamespaceKind, setHostname, unpinNamespaces, withNamespace } from './namespaces.ts';
import { type Child, spawnChild } from './spawn.ts';

/** util-linux's, which every distribution has. */
const UNSHARE = 'unshare';
const FLAGS: Readonly<Record<NamespaceKind, string>> = { net: '--net', uts: '--uts', ipc: '--ipc' };
/** Only a machine that is out of everything takes longer, milliseconds. */
const START_MS = 10_000;

/** `length` ids from `containerId` on inside are those from `hostId` on outside. */
export interface IdRange {
  hostId: number;
  containerId: number;
  length: number;
}

/** The ids of a user namespace (user_namespaces(7)). */
export interface IdRanges {
  uids: readonly IdRange[];
  gids: readonly IdRange[];
}

/**
 * Makes a user namespace, with namespaces of these kinds that it owns, and pins each as the file
 * `dir/<kind>`, the user namespace as `dir/user`. `lo` is up in a new network namespace. When a step fails,
 * nothing stays behind.
 *
 * A process with threads cannot make a user namespace (unshare(2), EINVAL), so a small program does, and
 * lives until everything is pinned.
 *
 * @throws SyscallError; BerthError `internal` with what the program said, `deadline`
 */
export async function pinUserNamespace(
  dir: string,
  kinds: readonly NamespaceKind[],
  ids: IdRanges,
  hostname: string,
): Promise<void> {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  try {
    await insideHolder(kinds, ids, (pid) => {
      for (const kind of ['user', ...kinds]) {
        const pin = join(dir, kind);
        closeSync(openSync(pin, 'wx', 0o444));
        mount(`/proc/${pid}/ns/${kind}`, pin, null, MS_BIND);
      }
    });
    if (kinds.includes('net')) withNamespace(join(dir, 'net'), 'net', () => bringUp('lo'));
    if (kinds.includes('uts') && hostname !== '') {
      withNamespace(join(dir, 'uts'), 'uts', () => setHostname(hostname));
    }
  } catch (e: unknown) {
    unpinNamespaces(dir);
    throw e;
  }
}

/**
 * Runs `use` with a descriptor of a new user namespace, which ends with it.
 *
 * @throws as {@link pinUserNamespace}, and what `use` throws
 */
export async function withUserNamespace<T>(ids: IdRanges, use: (usernsFd: number) => T): Promise<T> {
  return insideHolder([], ids, (pid) => {
    const fd = openSync(`/proc/${pid}/ns/user`, 'r');
    try {
      return use(fd);
    } finally {
      closeSync(fd);
    }
  });
}

async function insideHolder<T>(
  kinds: readonly NamespaceKind[],
  ids: IdRanges,
  use: (pid: number) => T,
): Promise<T> {
  const args = ['--user', ...kinds.map((kind) => FLAGS[kind]), 'cat'];
  const holder = spawnChild(UNSHARE, args, { env: inheritedEnvironment(), stdio: ['in', 'out', 'out'] });
  const [stdin, ...outputs] = holder.pipes;
  const timer = setTimeout(() => kill(holder), START_MS);
  try {
    await echoed(holder);
    writeFileSync(`/proc/${holder.pid}/uid_map`, mapText(ids.uids));
    writeFileSync(`/proc/${holder.pid}/gid_map`, mapText(ids.gids));
    return use(holder.pid);
  } finally {
    clearTimeout(timer);
    stdin?.destroy();
    kill(holder);
    await holder.exited;
    for (const output of outputs) output?.destroy();
  }
}

/** Resolves when cat runs, and with it the namespaces are there. */
async function echoed(holder: Child): Promise<void> {
  const [stdin, stdout, stderr] = holder.pipes;
  let said = '';
  stderr?.on('data', (chunk: Buffer) => {
    said = `${said}${chunk}`.slice(0, 1000);
  });
  stdin?.on('error', () => {});
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stdout?.once('data', () => resolve());
  void holder.exited.then(({ code, signal }) => {
    const timedOut = code === null && signal === 'SIGKILL';
    const why = said.trim() || (timedOut ? `no answer within ${START_MS / 1000} s` : `exit code ${code}`);
    reject(new BerthError(timedOut ? 'deadline' : 'internal', `user namespace: ${why}`));
  });
  stdin?.write('.');
  await promise;
}

function kill({ pid, reaped }: Child): void {
  if (reaped) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch (e: unknown) {
    if (!isErrno(e, 'ESRCH')) throw e;
  }
}

function mapText(ranges: readonly IdRange[]): string {
  return ranges.map((r) => `${r.containerId} ${r.hostId} ${r.length}\n`).join('');
}
