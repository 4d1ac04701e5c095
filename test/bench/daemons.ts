import { readdir, readFile, readlink } from 'node:fs/promises';
import { socketPath } from '../../src/cli/client.ts';
import { Berthd } from '../support/berthd.ts';
import { Containerd } from '../support/containerd.ts';
import { removeCgroups } from '../support/host.ts';
import { type Account, CgroupAccount, ProcessAccount } from './account.ts';
import type { Daemon } from './subject.ts';

/** A daemon with its account. */
export interface Made {
  daemon: Daemon;
  account: Account;
  /** The image of the pods. */
  image?: string;
}

/** The berthd of this checkout, built, with its usual log level. */
export async function makeBerth(): Promise<Made> {
  const daemon = await Berthd.start({ logLevel: 'info', detached: true });
  return withAccount(daemon, daemon.dir, () => daemon.importBusybox());
}

/** Debian's containerd with its usual configuration. */
export async function makeContainerd(): Promise<Made> {
  const daemon = await Containerd.start({ detached: true });
  return withAccount(daemon, daemon.directory, async () => {});
}

async function withAccount(daemon: Daemon, directory: string, prepare: () => Promise<void>): Promise<Made> {
  let account: Account | undefined;
  try {
    account = await CgroupAccount.create(`berth-bench-${daemon.pid}`, directory);
    await account.place(daemon.pid);
    await prepare();
    return { daemon, account };
  } catch (e: unknown) {
    await daemon.close();
    await account?.close();
    throw e;
  }
}

/** How to measure somebody else's daemon. */
export interface EndpointOptions {
  endpoint: string;
  cgroupParent: string;
  /** Names of programs that are its helpers though not its children. */
  helpers: string[];
  image: string;
}

/** A daemon that runs already; it is neither stopped nor configured. */
export async function makeEndpoint(options: EndpointOptions): Promise<Made> {
  const { endpoint, cgroupParent, helpers, image } = options;
  const pid = await listenerOf(socketPath(endpoint));
  const account = await ProcessAccount.create(helpers);
  await account.place(pid);
  return {
    daemon: { endpoint, cgroupParent, pid, close: () => removeCgroups(cgroupParent) },
    account,
    image,
  };
}

/** The process that listens at a unix socket. @throws Error when there is none */
async function listenerOf(socket: string): Promise<number> {
  const inode = (await readFile('/proc/net/unix', 'utf8'))
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    // proc(5): Num RefCount Protocol Flags Type St Inode Path; the flag says that it accepts connections.
    .find((fields) => fields[7] === socket && fields[3] === '00010000')?.[6];
  if (inode === undefined) throw new Error(`nothing listens at ${socket}`);
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
      if (target === `socket:[${inode}]`) return Number(pid);
    }
  }
  throw new Error(`no process of this PID namespace listens at ${socket}`);
}
