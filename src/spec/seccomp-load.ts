import { constants, open } from 'node:fs/promises';
import { BerthError, invalid, isErrno, messageOf } from '../errors.ts';
import type { SecurityProfile } from '../sandbox/config.ts';
import { parseSeccompProfile, type SeccompProfile } from './seccomp.ts';
import { withoutNesting } from './seccomp-default.ts';

/** Where Debian's golang-github-containers-common installs the profile of podman and CRI-O. */
const DEFAULT_SECCOMP_PATH = '/usr/share/containers/seccomp.json';

const MAX_BYTES = 1024 * 1024;

/**
 * Reads the profile that a security context asks for; undefined means "no filter". `field` is the CRI
 * path of the request's profile, such as `config.linux.security_context.seccomp`.
 *
 * A RuntimeDefault without a profile on the host is refused rather than run unfiltered.
 */
export async function loadSeccomp(
  wanted: SecurityProfile,
  privileged: boolean,
  field: string,
  defaultPath: string = DEFAULT_SECCOMP_PATH,
): Promise<SeccompProfile | undefined> {
  if (privileged || wanted.type === 'unconfined') return undefined;
  if (wanted.type === 'runtimeDefault') {
    const text = await readBounded(defaultPath).catch((e: unknown) => {
      if (!isErrno(e, 'ENOENT')) throw e;
      throw new BerthError(
        'precondition',
        `no default seccomp profile at ${defaultPath}: install Debian's package golang-github-containers-common`,
        { cause: e },
      );
    });
    const profile = parseSeccompProfile(text, defaultPath);
    // One that the administrator wrote means what it says.
    return defaultPath === DEFAULT_SECCOMP_PATH ? withoutNesting(profile) : profile;
  }
  const path = wanted.localhostRef;
  if (!path.startsWith('/')) throw invalid(`${field}.localhost_ref`, 'must be an absolute path');
  try {
    return parseSeccompProfile(await readBounded(path), path);
  } catch (e: unknown) {
    throw new BerthError('invalid', `${field}.localhost_ref: ${messageOf(e)}`, { cause: e });
  }
}

async function readBounded(path: string): Promise<string> {
  // Without O_NONBLOCK opening a FIFO would hold one of libuv's threads until a writer comes.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new BerthError('invalid', `${path}: not a regular file`);
    if (stat.size > MAX_BYTES)
      throw new BerthError('invalid', `${path}: a seccomp profile has at most 1 MiB`);
    const { bytesRead, buffer } = await file.read(Buffer.alloc(stat.size), 0, stat.size, 0);
    return buffer.toString('utf8', 0, bytesRead);
  } finally {
    await file.close();
  }
}
