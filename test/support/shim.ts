import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import type { Berthd } from './berthd.ts';
import { commandLines } from './host.ts';

/** Of Debian's package containerd. */
export const RUNC_SHIM = '/usr/bin/containerd-shim-runc-v2';
/** The handler's name in tests. */
export const SHIM_HANDLER = 'shim-runc';
/** Where that shim has its sockets, whoever calls it. */
const SOCKETS = '/run/containerd/s';

/** Configuration: runc and containerd's shim for runc. */
export const SHIM_TABLES = `
[runtimes.runc]
path = "/usr/sbin/runc"
[runtimes.${SHIM_HANDLER}]
type = "shim"
path = "${RUNC_SHIM}"
`;

/** The shims of one daemon: pids by the id that each was started for. */
export async function shims({ dir }: Pick<Berthd, 'dir'>): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const [pid, line] of await commandLines()) {
    if (!line.startsWith(RUNC_SHIM) || !line.includes(`-address ${dir}/`)) continue;
    const id = / -id (\S+)/.exec(line)?.[1];
    if (id !== undefined) found.set(id, pid);
  }
  return found;
}

/** Names of all shims' sockets on this machine: other daemons' come and go too. */
export async function shimSockets(): Promise<string[]> {
  return existsSync(SOCKETS) ? readdir(SOCKETS) : [];
}
