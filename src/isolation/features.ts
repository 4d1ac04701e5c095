import { chownSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../errors.ts';
import { run } from '../sys/exec.ts';
import { idmappedMount, tryRecursiveReadOnly } from '../sys/idmap.ts';
import { mountOverlay, unmount } from '../sys/mount.ts';
import { withUserNamespace } from '../sys/user-namespace.ts';

/** What a runtime handler on this node cannot do, and why; what is absent works. */
export interface MissingFeatures {
  /** Namespaces of the node instead of the pod's own, and the node's devices. */
  readonly host?: string;
  readonly recursiveReadOnlyMounts?: string;
  readonly userNamespaces?: string;
}

/** What an OCI runtime says that it can do. */
export interface RuntimeFeatures {
  /** Options of mounts, such as `rro`. */
  readonly mountOptions: ReadonlySet<string>;
  readonly idmappedMounts: boolean;
}

const FEATURES_MS = 10_000;
const MAX_FEATURES = 1024 * 1024;

/**
 * Asks a program for its features (OCI runtime specification, features.md).
 *
 * @returns undefined when it has no such command (runc before 1.1, crun before 1.8.6) or answers nonsense
 */
export async function runtimeFeatures(path: string): Promise<RuntimeFeatures | undefined> {
  try {
    const limits = { timeoutMs: FEATURES_MS, maxOutput: MAX_FEATURES };
    const { code, stdout } = await run([path, 'features'], limits);
    return code === 0 ? parseFeatures(stdout.toString()) : undefined;
  } catch {
    // Whatever is wrong with it, pods will tell; this only decides what is promised.
    return undefined;
  }
}

/** @throws SyntaxError when it is not JSON */
export function parseFeatures(text: string): RuntimeFeatures {
  const all = JSON.parse(text) as {
    mountOptions?: unknown;
    linux?: { mountExtensions?: { idmap?: { enabled?: unknown } } };
  } | null;
  const options = Array.isArray(all?.mountOptions) ? all.mountOptions : [];
  return {
    mountOptions: new Set(options.filter((option) => typeof option === 'string')),
    idmappedMounts: all?.linux?.mountExtensions?.idmap?.enabled === true,
  };
}

/** What a handler of virtual machines lacks on a kernel that lacks `kernel`. */
export function missingInVm({ recursiveReadOnlyMounts }: MissingFeatures): MissingFeatures {
  return {
    host: 'a virtual machine has a kernel of its own',
    userNamespaces: "a virtual machine's kernel keeps its users from the node's already",
    // It is the host's mounts that cannot be written.
    ...(recursiveReadOnlyMounts === undefined ? {} : { recursiveReadOnlyMounts }),
  };
}

/** What a handler lacks on a kernel that lacks `kernel`. */
export function missingFeatures(
  path: string,
  runtime: RuntimeFeatures | undefined,
  kernel: MissingFeatures,
): MissingFeatures {
  const runtimeLacks = {
    recursiveReadOnlyMounts: runtime?.mountOptions.has('rro')
      ? undefined
      : `${path} does not know them (mount option rro)`,
    userNamespaces: runtime?.idmappedMounts
      ? undefined
      : `${path} cannot map the owners of mounts (runc can from version 1.2 on)`,
  };
  const recursive = runtimeLacks.recursiveReadOnlyMounts ?? kernel.recursiveReadOnlyMounts;
  const user = runtimeLacks.userNamespaces ?? kernel.userNamespaces;
  return {
    ...(recursive === undefined ? {} : { recursiveReadOnlyMounts: recursive }),
    ...(user === undefined ? {} : { userNamespaces: user }),
  };
}

/**
 * Tries on `root`, where images and writable layers lie, what the kernel and the file system can do: version
 * numbers tell neither what a distribution has taken in or out nor what a file system supports.
 */
export async function probeKernel(root: string): Promise<MissingFeatures> {
  const recursive = await why(async () => tryRecursiveReadOnly(root));
  const user = await why(() => tryMappedLayers(join(root, 'probe')));
  return {
    ...(recursive === undefined
      ? {}
      : { recursiveReadOnlyMounts: `the kernel cannot make them: ${recursive}` }),
    ...(user === undefined ? {} : { userNamespaces: `layers below ${root} cannot be mapped: ${user}` }),
  };
}

const PROBE_HOST_ID = 0x4000_0000;
const PROBE_ID = 1000;

/** An overlay of a mapped layer shows the owners that the user namespace is to see. */
async function tryMappedLayers(dir: string): Promise<void> {
  const at = (name: string): string => join(dir, name);
  const clean = (): void => {
    for (const name of ['merged', 'idmapped']) unmount(at(name), { lazy: true });
    rmSync(dir, { recursive: true, force: true });
  };
  // What a daemon that was killed meanwhile has left.
  clean();
  try {
    for (const name of ['lower', 'idmapped', 'merged', 'upper', 'work'])
      mkdirSync(at(name), { recursive: true, mode: 0o700 });
    const file = at('lower/file');
    writeFileSync(file, '');
    chownSync(file, PROBE_ID, PROBE_ID);
    const ids = [{ hostId: PROBE_HOST_ID, containerId: 0, length: 65_536 }];
    await withUserNamespace({ uids: ids, gids: ids }, (usernsFd) => {
      idmappedMount(at('lower'), at('idmapped'), usernsFd);
      const layers = { lowerdirs: [at('idmapped')], upperdir: at('upper'), workdir: at('work') };
      mountOverlay({ ...layers, target: at('merged') });
      const { uid, gid } = statSync(at('merged/file'));
      const wanted = PROBE_HOST_ID + PROBE_ID;
      if (uid !== wanted || gid !== wanted)
        throw new Error(`overlayfs shows the owner ${uid} instead of ${wanted}`);
    });
  } finally {
    clean();
  }
}

/** Why something does not work; a daemon that only finds this out must start all the same. */
async function why(attempt: () => Promise<void>): Promise<string | undefined> {
  return attempt().then(() => undefined, messageOf);
}
