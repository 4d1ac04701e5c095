import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { BerthError } from '../../errors.ts';
import { type Signal, signalNumber } from '../../signals.ts';
import { type RunResult, run } from '../../sys/exec.ts';
import { helperEnvironment } from '../../sys/helpers.ts';

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

/** How a process is started in a container. */
export interface RuntimeExecOptions {
  /** `process` holds an OCI process object; the others are written by the runtime. */
  files: { process: string; pid: string; log: string };
  /** Descriptors of this process; those left out are /dev/null. */
  stdio: { stdin?: number; stdout?: number; stderr?: number };
  /** For a process with a terminal: where the pty's master is sent (see `ConsoleSocket`). */
  consoleSocket?: string;
  signal: AbortSignal;
}

/**
 * A program with runc's command line (runc, crun, youki, runsc): one method per verb. Creating goes
 * through conmon (see conmon.ts) where a container has stdio worth keeping, and through
 * {@link OciRuntime.run} where it has none.
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

  /**
   * Creates and starts a container without a monitor, with /dev/null for stdio: one process less to wait
   * for than `create` and `start`. Returns the init's pid.
   */
  async run(id: string, bundle: string, pidFile: string): Promise<number> {
    // The container inherits the standard streams, so a pipe would never end.
    await this.#verb(
      id,
      ['run', '--detach', '--bundle', bundle, '--pid-file', pidFile, id],
      `${bundle}/runtime.log`,
    );
    return readPidFile(pidFile);
  }

  async start(id: string): Promise<void> {
    await this.#verb(id, ['start', id]);
  }

  /** Whether the container's command was started: false while the init waits for `start`. */
  async isStarted(id: string): Promise<boolean> {
    const { stdout } = await this.#verb(id, ['state', id]);
    const { status } = JSON.parse(stdout.toString()) as { status?: unknown };
    return status === 'running' || status === 'paused';
  }

  /** Sends a signal to the container's init. */
  async kill(id: string, signal: Signal): Promise<void> {
    // By number: the runtimes do not agree on the names of real-time signals.
    await this.#verb(id, ['kill', id, String(signalNumber(signal))]);
  }

  /**
   * Kills what is left and removes the runtime's state and cgroup. A container that the runtime does not
   * know counts as removed: runc answers `delete --force` of an unknown id with success.
   */
  async delete(id: string): Promise<void> {
    await this.#verb(id, ['delete', '--force', id]);
  }

  /**
   * Starts a process in a container and returns its pid; it goes on by itself with `stdio`'s descriptors,
   * and is an orphan that this process inherits (see `becomeSubreaper`).
   *
   * Detached, because a runtime that stays adds a process per command, copies every byte, and waits for
   * children in the background that hold stdout, while the command itself has long ended.
   *
   * @throws BerthError `internal` with the runtime's message when there is no such command; the signal's reason
   */
  async startProcess(id: string, options: RuntimeExecOptions): Promise<number> {
    const { files, stdio, signal } = options;
    const args = [
      ...[...this.globalArgs(files.log), 'exec', '--detach'],
      ...['--process', files.process, '--pid-file', files.pid],
      ...(options.consoleSocket === undefined ? [] : ['--console-socket', options.consoleSocket]),
      id,
    ];
    const result = await run([this.path, ...args], {
      timeoutMs: RUNTIME_TIMEOUT_MS,
      maxOutput: 0,
      ...(stdio.stdin === undefined ? {} : { stdin: stdio.stdin }),
      stdout: stdio.stdout ?? 'ignore',
      stderr: stdio.stderr ?? 'ignore',
      signal,
    });
    if (result.code === 0) return readPidFile(files.pid);
    const said = runtimeMessage(await readFile(files.log, 'utf8').catch(() => ''));
    throw new BerthError('internal', said || `exec: ${exitText(result)}`);
  }

  /** The runtime's own version line, for `berth info`. */
  async version(): Promise<string> {
    const { stdout } = await run([this.path, '--version'], { timeoutMs: 5000, maxOutput: 64 * 1024 });
    return stdout.toString().split('\n')[0] ?? '';
  }

  /** With `log` the verb's messages go to that file, and its standard streams to /dev/null. */
  async #verb(id: string, verb: [string, ...string[]], log?: string): Promise<RunResult> {
    const result = await run([this.path, ...this.globalArgs(log), ...verb], {
      env: helperEnvironment(id),
      timeoutMs: RUNTIME_TIMEOUT_MS,
      maxOutput: 1024 * 1024,
      ...(log === undefined ? {} : { stdout: 'ignore', stderr: 'ignore' }),
    });
    if (result.code === 0) return result;
    const said = log === undefined ? result.stderr.toString() : await readFile(log, 'utf8').catch(() => '');
    throw new BerthError('internal', runtimeMessage(said) || `${verb[0]}: ${exitText(result)}`);
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

/**
 * Not by another thread: waiting for one takes longer than these few bytes.
 *
 * @throws BerthError `internal` when the file holds no pid; Node's system error
 */
export function readPidFile(path: string): number {
  const text = readFileSync(path, 'utf8');
  const pid = Number(text.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1) {
    throw new BerthError('internal', `${path}: not a pid: ${JSON.stringify(text.slice(0, 40))}`);
  }
  return pid;
}

/** Undefined also when there is no such file, or not yet. */
export function tryReadPidFile(path: string): number | undefined {
  try {
    return readPidFile(path);
  } catch {
    return undefined;
  }
}
