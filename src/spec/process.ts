import { posix } from 'node:path';
import type { ContainerConfig } from '../container/config.ts';
import { invalid } from '../errors.ts';
import type { ImageConfig } from '../image/types.ts';
import type { Process } from './types.ts';

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Kubernetes' rules for `command` and `args`: a command replaces the image's entrypoint and its default
 * arguments, args alone replace the default arguments only.
 */
export function processArgs(config: ContainerConfig, image: ImageConfig): string[] {
  let argv: string[];
  if (config.command.length > 0) {
    argv = [...config.command, ...config.args];
  } else {
    // `ENTRYPOINT [""]` is how a Dockerfile takes back the entrypoint of its base image.
    const entrypoint = image.entrypoint.length === 1 && image.entrypoint[0] === '' ? [] : image.entrypoint;
    argv = [...entrypoint, ...(config.args.length > 0 ? config.args : image.cmd)];
  }
  if (argv.length === 0) {
    throw invalid('config.command', 'is empty, and the image names neither an entrypoint nor a command');
  }
  for (const arg of argv) noNul(arg, 'config.command');
  return argv;
}

/**
 * `NAME=value` entries, each name once: defaults, then the image's, then the request's; a later value
 * takes the earlier one's place. HOME is left to the OCI runtime, which sets it from the passwd file
 * that the process sees, also for commands that run in the container later.
 */
export function processEnv(config: ContainerConfig, image: ImageConfig, hostname: string): string[] {
  const env = new Map<string, string>();
  const put = (entry: string): void => {
    const name = entry.split('=', 1)[0] ?? '';
    if (name !== '' && entry.includes('=')) env.set(name, entry);
  };
  put(DEFAULT_PATH);
  if (config.tty) put('TERM=xterm');
  put(`HOSTNAME=${hostname}`);
  for (const entry of image.env) put(noNul(entry, 'environment of the image'));
  config.envs.forEach(({ key, value }, i) => {
    const field = `config.envs[${i}].key`;
    if (key === '' || key.includes('=')) throw invalid(field, 'must not be empty or contain "="');
    put(noNul(`${key}=${value}`, field));
  });
  return [...env.values()];
}

/** The request's, else the image's, else `/`. Images may name it relative to the root. */
export function processCwd(config: ContainerConfig, image: ImageConfig): string {
  if (config.workingDir === '')
    return posix.resolve('/', noNul(image.workingDir, 'working directory of the image'));
  if (!config.workingDir.startsWith('/')) throw invalid('config.working_dir', 'must be an absolute path');
  return noNul(config.workingDir, 'config.working_dir');
}

/** `wanted` as far as the daemon may lower it. */
export function oomScoreAdj(wanted: number, lowest: number): number {
  return Math.max(wanted, lowest);
}

/** The process of a command that is run in a container later: as the container's own, but for these. */
export function execProcess(container: Process, args: string[], terminal: boolean): Process {
  const env = terminal && !container.env.some((e) => e.startsWith('TERM=')) ? ['TERM=xterm'] : [];
  return { ...container, args, terminal, env: [...container.env, ...env] };
}

/** The kernel takes strings that end with the first NUL. */
function noNul(text: string, field: string): string {
  if (text.includes('\0')) throw invalid(field, 'must not contain NUL bytes');
  return text;
}
