import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { during, isErrno } from '../errors.ts';
import type { ContainerPaths } from '../paths.ts';
import type { SandboxConfig } from '../sandbox/config.ts';
import type { ContainerConfig } from './config.ts';

/**
 * Where a container's log goes. A pod without a log directory gets its logs beside the writable layer,
 * to go with the container: an empty path in ContainerStatus would make the kubelet remove files of its
 * own working directory, and `berth logs` works this way too.
 */
export function containerLogPath(
  paths: ContainerPaths,
  sandbox: SandboxConfig,
  config: ContainerConfig,
): string {
  return sandbox.logDirectory === '' || config.logPath === ''
    ? join(paths.writable, 'container.log')
    : join(sandbox.logDirectory, config.logPath);
}

/** The kubelet makes the pod's directory, but crictl's users often do not. */
export async function makeLogDirectory(logPath: string): Promise<void> {
  try {
    await makeDirectories(dirname(logPath));
  } catch (e: unknown) {
    throw during('log directory', e);
  }
}

/** Node's own recursive mkdir says ENOENT where the kernel says EROFS. */
async function makeDirectories(dir: string): Promise<void> {
  try {
    await mkdir(dir, { mode: 0o755 });
  } catch (e: unknown) {
    if (isErrno(e, 'EEXIST')) return;
    if (!isErrno(e, 'ENOENT')) throw e;
    await makeDirectories(dirname(dir));
    await makeDirectories(dir);
  }
}
