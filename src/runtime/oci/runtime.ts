import { readFile } from 'node:fs/promises';
import { BerthError } from '../../errors.ts';
import type { Signal } from '../../signals.ts';
import { type RunResult, run } from '../../sys/exec.ts';

/** No verb of an OCI runtime takes longer, or something in the kernel is stuck. */
export const RUNTIME_TIMEOUT_MS = 60_000;

/** How an OCI runtime is called. */
export interface OciRuntimeOptions {
  /** The program. */
  path: string;
  /** `--root`: the folder in which it keeps its own state. */
  root: string;
  systemdCgroup: boolean;
}

/**
 * A program with runc's command line (runc, crun, youki, runsc): one method per verb. Creating goes
 * through conmon (see conmon.ts) where a container has stdio worth keeping, and through
 * {@link OciRuntime.create} where it has none.
 */
export class OciRuntime {
  readonly path: string;
  readonly #options: OciRuntimeOptions;

  constructor(options: OciRuntimeOptions) {
    this.path = options.path;
    this.#options = options;
  }

  /** Arguments that stand before every verb. `log` is where the runtime writes its own messages. */
  globalArgs(log?: string): string[] {
    const { root, systemdCgroup } = this.#options;
    return [
      '--root',
      root,
      ...(log === undefined ? [] : ['--log', log]),
      ...(systemdCgroup ? ['--systemd-cgroup'] : []),
    ];
  }

  /** `create` without a monitor: stdio is /dev/null. The init's pid is read from `pidFile`. */
  async create(id: string, bundle: string, pidFile: string): Promise<number> {
    await this.#verb('create', ['--bundle', bundle, '--pid-file', pidFile, id]);
    return readPidFile(pidFile);
  }

  async start(id: string): Promise<void> {
    await this.#verb('start', [id]);
  }

  /** Sends a signal to the container's init. */
  async kill(id: string, signal: Signal): Promise<void> {
    await this.#verb('kill', [id, signal]);
  }

  /**
   * Kills what is left and removes the runtime's state and cgroup. A container that the runtime does not
   * know counts as removed: runc answers `delete --force` of an unknown id with success.
   */
  async delete(id: string): Promise<void> {
    await this.#verb('delete', ['--force', id]);
  }

  /** The verb's arguments for `run` in exec-sync; see `runc exec --help`. */
  execArgs(id: string, processSpec: string, pidFile: string): string[] {
    return [this.path, ...this.globalArgs(), 'exec', '--process', processSpec, '--pid-file', pidFile, id];
  }

  /** The runtime's own version line, for `berth info`. */
  async version(): Promise<string> {
    const { stdout } = await run([this.path, '--version'], { timeoutMs: 5000, maxOutput: 64 * 1024 });
    return stdout.toString().split('\n')[0] ?? '';
  }

  async #verb(verb: string, args: string[]): Promise<RunResult> {
    const result = await run([this.path, ...this.globalArgs(), verb, ...args], {
      timeoutMs: RUNTIME_TIMEOUT_MS,
      maxOutput: 1024 * 1024,
    });
    if (result.code === 0) return result;
    throw new BerthError(
      'internal',
      runtimeMessage(result.stderr.toString()) || `${verb}: ${exitText(result)}`,
    );
  }
}

function exitText(result: RunResult): string {
  return result.signal === null ? `exit code ${result.code}` : `killed by ${result.signal}`;
}

/**
 * What a runtime meant by its stderr: runc writes log lines (`time=… level=error msg="…"`), crun plain
 * ones. The last error line counts; quotes and the runtime's own prefixes are taken off.
 */
export function runtimeMessage(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '');
  const line = lines.findLast((l) => /level=(error|fatal)/.test(l)) ?? lines.at(-1) ?? '';
  const quoted = /msg=("(?:[^"\\]|\\.)*")/.exec(line)?.[1];
  if (quoted === undefined) return line.trim();
  try {
    return JSON.parse(quoted) as string;
  } catch {
    return quoted;
  }
}

/** @throws BerthError `internal` when the file holds no pid. */
export async function readPidFile(path: string): Promise<number> {
  const text = await readFile(path, 'utf8');
  const pid = Number(text.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1) {
    throw new BerthError('internal', `${path}: not a pid: ${JSON.stringify(text.slice(0, 40))}`);
  }
  return pid;
}
