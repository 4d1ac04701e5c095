import { readdir, readlink } from 'node:fs/promises';
import { listMounts } from '../../src/sys/mount.ts';

/** Kinds of namespaces as /proc/<pid>/ns names them, by how people call them. */
export const KINDS = { net: 'network', uts: 'UTS', ipc: 'IPC', mnt: 'mount', pid: 'PID' } as const;

/** One kind of namespace of several processes. */
export interface Row {
  kind: keyof typeof KINDS;
  /** `net:[4026532571]`, in the order of the processes. */
  ids: string[];
  shared: boolean;
}

/** The namespaces of processes side by side, as the links in /proc/<pid>/ns name them. */
export async function compareNamespaces(pids: readonly number[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const kind of Object.keys(KINDS) as (keyof typeof KINDS)[]) {
    const ids = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/ns/${kind}`)));
    rows.push({ kind, ids, shared: new Set(ids).size === 1 });
  }
  return rows;
}

/** What keeps a namespace alive: a process in it, or a mount of its file. */
export interface Holder {
  namespace: string;
  by: string;
}

/** Holders of these namespaces: all processes, and the mounts below a directory. */
export async function holdersOf(namespaces: ReadonlySet<string>, dir: string): Promise<Holder[]> {
  const holders = listMounts(dir)
    .filter(({ root }) => namespaces.has(root))
    .map(({ root, mountpoint }): Holder => ({ namespace: root, by: `mount ${mountpoint}` }));
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    for (const kind of Object.keys(KINDS)) {
      const namespace = await readlink(`/proc/${pid}/ns/${kind}`).catch(() => '');
      if (namespaces.has(namespace)) holders.push({ namespace, by: `process ${pid}` });
    }
  }
  return holders;
}
