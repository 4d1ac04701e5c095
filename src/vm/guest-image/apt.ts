import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { BerthError, isErrno, messageOf } from '../../errors.ts';

const exec = promisify(execFile);
const QUERY_MS = 60_000;
const DOWNLOAD_MS = 600_000;
const MAX_OUTPUT = 16 * 1024 * 1024;

/** A Debian package of the version that would be downloaded now. */
export interface Package {
  /** Of the file that apt writes. */
  file: string;
  /** With its kind: `SHA256:…`. */
  digest: string;
}

/**
 * The newest kernel for virtual machines that this machine's package sources have.
 *
 * @throws BerthError `precondition` when they have none
 */
export async function kernelPackage(arch: string): Promise<string> {
  const meta = `linux-image-cloud-${arch}`;
  const text = await run('apt-cache', ['depends', meta], { timeout: QUERY_MS });
  const name = /^ *Depends: (linux-image-\S+)$/m.exec(text)?.[1];
  if (name !== undefined) return name;
  throw new BerthError(
    'precondition',
    `this machine's package sources have no ${meta}: they must name Debian 12 or later, and "apt-get update" must have run`,
  );
}

/** @throws BerthError `precondition` with apt's words when the sources do not have one of them */
export async function resolvePackages(names: readonly string[]): Promise<Package[]> {
  const text = await run('apt-get', ['--print-uris', 'download', ...names], { timeout: QUERY_MS });
  const packages = [...text.matchAll(/^'[^']*' (\S+) \d+ (\S+:\S+)$/gm)].map(
    ([, file = '', digest = '']) => ({
      file,
      digest,
    }),
  );
  if (packages.length !== names.length) {
    throw new BerthError('precondition', `apt-get knows ${packages.length} of ${names.join(', ')}`);
  }
  return packages.sort((a, b) => (a.file < b.file ? -1 : 1));
}

/** Downloads packages, which apt verifies, into `into`; and unpacks each one there at the path that `target` names. */
export async function unpackPackages(
  names: readonly string[],
  into: string,
  target: (file: string) => string,
  signal: AbortSignal,
): Promise<void> {
  await run('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', 'download', ...names], {
    cwd: into,
    timeout: DOWNLOAD_MS,
    signal,
  });
  for (const file of (await readdir(into)).filter((name) => name.endsWith('.deb')).sort()) {
    await run('dpkg-deb', ['-x', path.join(into, file), target(file)], { timeout: QUERY_MS, signal });
  }
}

/**
 * Runs a program that is part of the build.
 *
 * @param package_ of Debian's that has it
 * @throws BerthError `precondition` naming the package when it is missing; `internal` with its last words
 */
export async function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; timeout: number; signal?: AbortSignal; env?: NodeJS.ProcessEnv },
  package_ = 'apt',
): Promise<string> {
  try {
    const { stdout } = await exec(program, args, { maxBuffer: MAX_OUTPUT, ...options });
    return stdout;
  } catch (e: unknown) {
    options.signal?.throwIfAborted();
    if (isErrno(e, 'ENOENT')) {
      throw new BerthError('precondition', `${program} is missing: install Debian's package ${package_}`, {
        cause: e,
      });
    }
    const said = e instanceof Error && 'stderr' in e ? String(e.stderr).trim() : '';
    throw new BerthError('internal', `${program}: ${said === '' ? messageOf(e) : said.slice(-2000)}`, {
      cause: e,
    });
  }
}
