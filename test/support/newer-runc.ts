import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { access, chmod, copyFile, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const exec = promisify(execFile);

/** Debian's suite that always has the newest runc. */
const SUITE = 'sid';
/** The program with the libraries that are newer than the host's. */
const PACKAGES = ['runc', 'libc6', 'libseccomp2'];
/** Kept between runs: 30 MB, a few seconds of downloads. */
const FOLDER = path.join(tmpdir(), `berth-test-runc-${SUITE}`);

/**
 * A runc of 1.2 or later, which can map the owners of mounts, beside the one of this host's Debian.
 *
 * Its packages come from the mirror that apt on this machine uses, are unpacked in a folder, and the program is
 * told by patchelf to use the loader and the C library that came with it: installing them would replace the
 * host's own.
 *
 * @returns the program, or undefined, with a warning, where the packages cannot be had
 */
export async function newerRunc(): Promise<string | undefined> {
  const program = path.join(FOLDER, 'runc');
  if (existsSync(program)) return program;
  const work = await mkdtemp(`${FOLDER}-`);
  try {
    await download(work);
    await chmod(work, 0o755);
    // Another test may have been faster.
    await rename(work, FOLDER).catch(async (e: unknown) => access(program).catch(() => Promise.reject(e)));
    return program;
  } catch (e: unknown) {
    console.warn(`no newer runc, so user namespaces are not tested: ${String(e)}`);
    return undefined;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function download(dir: string): Promise<void> {
  const debs = path.join(dir, 'debs');
  for (const name of ['debs', 'lists/partial', 'cache/archives/partial'])
    await mkdir(path.join(dir, name), { recursive: true });
  const sources = path.join(dir, 'sources.list');
  const keys = '/usr/share/keyrings/debian-archive-keyring.gpg';
  await writeFile(sources, `deb [signed-by=${keys}] ${await mirror()} ${SUITE} main\n`);
  const options = [
    ...['-q', '-o', `Dir::Etc::sourcelist=${sources}`, '-o', 'Dir::Etc::sourceparts=/dev/null'],
    ...['-o', `Dir::State::lists=${dir}/lists`, '-o', `Dir::Cache=${dir}/cache`],
  ];
  const limits = { cwd: debs, timeout: 120_000, maxBuffer: 1 << 24 };
  await exec('apt-get', [...options, 'update'], limits);
  await exec('apt-get', [...options, 'download', ...PACKAGES], limits);
  await exec('apt-get', ['-q', 'download', 'patchelf'], limits);
  const root = path.join(dir, 'root');
  const tools = path.join(dir, 'tools');
  for (const deb of await readdir(debs)) {
    const target = deb.startsWith('patchelf') ? tools : root;
    await exec('dpkg-deb', ['-x', path.join(debs, deb), target]);
  }
  await copyFile(path.join(root, 'usr/sbin/runc'), path.join(dir, 'runc'));
  const { stdout } = await exec('dpkg-architecture', ['-qDEB_HOST_MULTIARCH']).catch(() => ({
    stdout: process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu',
  }));
  // By the folder's last name, which is not this one's.
  const libraries = path.join('root/usr/lib', stdout.trim());
  const loader = (await readdir(path.join(dir, libraries))).find((name) => /^ld-linux.*\.so\.\d$/.test(name));
  const final = path.join(FOLDER, libraries);
  await exec(path.join(tools, 'usr/bin/patchelf'), [
    ...['--set-interpreter', path.join(final, loader ?? ''), '--set-rpath', final],
    path.join(dir, 'runc'),
  ]);
  for (const name of ['debs', 'lists', 'cache', 'tools']) await rm(path.join(dir, name), { recursive: true });
}

/** Where apt on this machine has Debian from, so that no mirror is named here. */
async function mirror(): Promise<string> {
  const format = '$(ORIGIN)|$(REPO_URI)|$(RELEASE)';
  const { stdout } = await exec('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
  const lines = stdout.split('\n').map((line) => line.split('|'));
  // The archive of security updates has no such suite.
  const found = lines.find(
    ([origin, , release = '']) => origin === 'Debian' && !/security|updates/.test(release),
  );
  if (found?.[1] === undefined) throw new Error("apt's sources on this machine name no Debian archive");
  return found[1];
}
