import { createHash } from 'node:crypto';
import {
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { BerthError, isErrno } from '../../errors.ts';
import { kernelPackage, type Package, resolvePackages, run, unpackPackages } from './apt.ts';
import { type CpioEntry, cpio } from './cpio.ts';
import { type BuiltImage, CURRENT, DESCRIPTION, type Description, readImage } from './find.ts';
import { EARLY_MODULES, INIT_SCRIPT, LATE_MODULES } from './init.ts';
import { unpackKernel } from './kernel.ts';
import { findModules, loadOrder } from './modules.ts';
import { type AgentFiles, completeRootfs, copyModules, ROOTFS_PACKAGES, ROOTFS_RECIPE } from './rootfs.ts';

/** Raised when the build makes something else from the same packages and agent. */
const RECIPE = 1;
const MKFS_MS = 120_000;
/** Persistent memory comes in such pieces. */
const ROOTFS_ALIGNMENT = 2 * 1024 * 1024;
const BUILDING = '.building-';
const KEY = /^[0-9a-f]{16}$/;
const HOUR_MS = 3_600_000;
/**
 * The crypto subsystem's self tests cost half a second under emulation; the timer check fails now and then there.
 * Without `panic=-1` a guest whose kernel panics would stay.
 */
const KERNEL_ARGS = [
  ...['console=ttyS0', 'quiet', 'panic=-1', 'mitigations=off', 'cryptomgr.notests', 'no_timer_check'],
  ...['random.trust_cpu=on', 'net.ifnames=0'],
];
const DIRECTORY_MODE = 0o040755;
const FILE_MODE = 0o100644;
const PROGRAM_MODE = 0o100755;

export interface BuildOptions {
  /** Where images are kept. */
  dir: string;
  agent: AgentFiles;
  /** Builds even when there is one of the same parts. */
  force: boolean;
  progress(step: string): void;
  signal: AbortSignal;
}

/**
 * Builds the guest image from this machine's Debian package sources, berth's agent and its Node.js, unless there is
 * one of the same parts; and makes it the current one. The same parts make the same image. A build that fails or is
 * cut off leaves the current one.
 *
 * @throws BerthError `precondition` naming what is missing on this machine; the signal's reason
 */
export async function buildGuestImage(options: BuildOptions): Promise<{ image: BuiltImage; built: boolean }> {
  const { dir, progress } = options;
  progress('asking for packages');
  const kernel = await kernelPackage(process.arch === 'x64' ? 'amd64' : process.arch);
  const names = [...ROOTFS_PACKAGES, kernel];
  const key = await keyOf(await resolvePackages(names), options.agent);
  const final = path.join(dir, key);
  await mkdir(dir, { recursive: true });
  const built = options.force || !(await isImage(final));
  if (built) {
    await removeOld(dir);
    const making = await mkdtemp(path.join(dir, BUILDING));
    try {
      await build(making, names, kernel, options);
      await rm(final, { recursive: true, force: true });
      await rename(path.join(making, 'image'), final);
    } finally {
      await rm(making, { recursive: true, force: true });
    }
  }
  await makeCurrent(dir, key);
  return { image: await readImage(final), built };
}

/** Of all that goes into an image. */
async function keyOf(packages: readonly Package[], agent: AgentFiles): Promise<string> {
  const hash = createHash('sha256').update(
    JSON.stringify([
      RECIPE,
      KERNEL_ARGS,
      INIT_SCRIPT,
      EARLY_MODULES,
      ROOTFS_RECIPE,
      process.version,
      packages,
    ]),
  );
  try {
    hash.update(await readFile(agent.bundle));
    hash.update(await readFile(path.join(agent.modules, 'koffi/package.json')));
  } catch (e: unknown) {
    throw new BerthError('precondition', `berth's own files are not complete: ${String(e)}`, { cause: e });
  }
  return hash.digest('hex').slice(0, 16);
}

async function isImage(dir: string): Promise<boolean> {
  return stat(path.join(dir, DESCRIPTION)).then(
    () => true,
    () => false,
  );
}

/**
 * Builds that were killed, and images that are not the current one: a running build is younger than an hour, and a
 * machine has opened its files within a day.
 */
async function removeOld(dir: string): Promise<void> {
  const current = await readlink(path.join(dir, CURRENT)).catch(() => undefined);
  for (const name of await readdir(dir)) {
    const limit = name.startsWith(BUILDING)
      ? HOUR_MS
      : KEY.test(name) && name !== current
        ? 24 * HOUR_MS
        : Infinity;
    const file = path.join(dir, name);
    if (Date.now() - (await lstat(file)).mtimeMs > limit) await rm(file, { recursive: true, force: true });
  }
}

async function build(
  making: string,
  names: readonly string[],
  kernelName: string,
  { agent, progress, signal }: BuildOptions,
): Promise<void> {
  const [debs, root, kernel, image] = ['debs', 'root', 'kernel', 'image'].map((name) =>
    path.join(making, name),
  );
  if (debs === undefined || root === undefined || kernel === undefined || image === undefined) return;
  for (const dir of [debs, root, kernel, image]) await mkdir(dir);
  progress(`downloading ${names.join(', ')}`);
  await unpackPackages(names, debs, (file) => (file.startsWith(`${kernelName}_`) ? kernel : root), signal);
  const release = await kernelRelease(kernel);
  const modules = path.join(kernel, 'lib/modules', release);
  progress(`kernel ${release}`);
  await writeKernel(path.join(kernel, 'boot', `vmlinuz-${release}`), path.join(image, 'kernel'));
  await writeFile(path.join(image, 'initrd'), cpio(await initrdEntries(modules, root)));
  progress('root file system');
  await completeRootfs(root, agent);
  await copyModules(modules, root, LATE_MODULES);
  await run('chroot', [root, '/bin/busybox', 'depmod', release], { timeout: MKFS_MS, signal });
  await makeErofs(root, path.join(image, 'rootfs.erofs'), signal);
  const description: Description = {
    kernel: 'kernel',
    initrd: 'initrd',
    rootfs: 'rootfs.erofs',
    rootfsType: 'erofs',
    kernelArgs: KERNEL_ARGS,
    release,
  };
  await writeFile(path.join(image, DESCRIPTION), `${JSON.stringify(description, null, 2)}\n`);
  for (const name of await readdir(image)) await sync(path.join(image, name));
}

async function kernelRelease(kernel: string): Promise<string> {
  const [release] = await readdir(path.join(kernel, 'lib/modules'));
  if (release === undefined) throw new BerthError('internal', 'the kernel package has no modules');
  return release;
}

async function writeKernel(from: string, to: string): Promise<void> {
  const image = await readFile(from);
  await writeFile(to, unpackKernel(image) ?? image);
}

async function initrdEntries(modules: string, root: string): Promise<CpioEntry[]> {
  const files = await findModules(modules);
  const common = await loadOrder(files, EARLY_MODULES.common);
  const order: Record<string, readonly string[]> = { common };
  const loaded = new Set(common);
  for (const kind of ['serial', 'vsock', 'pmem', 'block'] as const) {
    order[kind] = (await loadOrder(files, EARLY_MODULES[kind])).filter((name) => !loaded.has(name));
  }
  const entries: CpioEntry[] = ['bin', 'dev', 'proc', 'root', 'modules'].map((name) => ({
    name,
    mode: DIRECTORY_MODE,
  }));
  for (const [kind, names] of Object.entries(order)) {
    const content = Buffer.from(names.map((name) => `${name}\n`).join(''));
    entries.push({ name: `modules/${kind}`, mode: FILE_MODE, content });
    for (const name of names) {
      const file = files.get(name);
      if (file === undefined || entries.some((entry) => entry.name === `modules/${name}.ko`)) continue;
      entries.push({ name: `modules/${name}.ko`, mode: FILE_MODE, content: await readFile(file) });
    }
  }
  entries.push({
    name: 'bin/busybox',
    mode: PROGRAM_MODE,
    content: await readFile(path.join(root, 'bin/busybox')),
  });
  entries.push({ name: 'init', mode: PROGRAM_MODE, content: Buffer.from(INIT_SCRIPT) });
  return entries;
}

/** Times, owners and identity are fixed; files are laid out so that they can be mapped from persistent memory. */
async function makeErofs(root: string, file: string, signal: AbortSignal): Promise<void> {
  await run(
    'mkfs.erofs',
    ['--quiet', '-T0', '-U00000000-0000-0000-0000-000000000000', '--all-root', '-Enoinline_data', file, root],
    { timeout: MKFS_MS, signal },
    'erofs-utils',
  );
  const { size } = await stat(file);
  await truncate(file, Math.ceil(size / ROOTFS_ALIGNMENT) * ROOTFS_ALIGNMENT);
}

/** A power cut must not leave an image that is named and not complete. */
async function sync(file: string): Promise<void> {
  const handle = await open(file);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** By a rename, so that there is a current one at any moment. */
async function makeCurrent(dir: string, key: string): Promise<void> {
  const link = path.join(dir, `${BUILDING}${key}`);
  try {
    await symlink(key, link);
  } catch (e: unknown) {
    if (!isErrno(e, 'EEXIST')) throw e;
  }
  await rename(link, path.join(dir, CURRENT));
}
