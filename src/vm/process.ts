import { closeSync, openSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { BerthError, during } from '../errors.ts';
import { inheritedEnvironment } from '../sys/exec.ts';
import { withNamespace } from '../sys/namespaces.ts';
import { identify, type ProcessIdentity, signal } from '../sys/process-identity.ts';
import { type Child, type ExitStatus, spawnChild } from '../sys/spawn.ts';
import { orAborted } from '../util/abort.ts';

/** Of a log, how much is read for its last words, bytes. */
const TAIL_BYTES = 4096;
const MAX_WORDS = 500;

/** Where a virtual machine's hypervisor or file server is to live. */
export interface VmProcessOptions {
  /** Gets what it writes to stdout and stderr. Made afresh. */
  logFile: string;
  /** Path of the network namespace to start in; undefined: this process's. */
  netns: string | undefined;
  /** `cgroup.procs` files that it is in before the program runs. */
  cgroups: readonly string[];
  /** Descriptors of this process that become 3, 4, … there. */
  fds?: readonly number[];
}

/** A process of a virtual machine, a child of this one. */
export class VmProcess {
  readonly identity: ProcessIdentity;
  /** Never rejects. */
  readonly exited: Promise<ExitStatus>;
  readonly #logFile: string;

  constructor(identity: ProcessIdentity, exited: Promise<ExitStatus>, logFile: string) {
    this.identity = identity;
    this.exited = exited;
    this.#logFile = logFile;
  }

  /** The last line that it wrote, or else how it ended. To be called when it has. */
  async lastWords(): Promise<string> {
    const line = lastLine(await readTail(this.#logFile));
    if (line !== '') return line;
    const { code, signal: sig } = await this.exited;
    if (sig !== null) return `killed by ${sig}`;
    return code === null ? 'ended' : `exit code ${code}`;
  }

  /** SIGKILL, and waits for the end. Repeatable. @throws the signal's reason */
  async kill(abort: AbortSignal): Promise<void> {
    signal(this.identity, 'SIGKILL');
    await orAborted(this.exited, abort);
  }
}

/**
 * Starts a program of a virtual machine in its network namespace and cgroups.
 *
 * A process that has forked, or has memory, when it is put into a cgroup leaves children and memory
 * outside. So what is started first is a shell that waits for one line and then becomes the program.
 *
 * @throws SyscallError when it cannot be started; BerthError when it cannot be placed. Nothing is left then
 */
export async function startVmProcess(
  argv: readonly [string, ...string[]],
  options: VmProcessOptions,
): Promise<VmProcess> {
  const { logFile, netns, cgroups, fds = [] } = options;
  const placed = cgroups.length > 0;
  const [program, ...args] = placed ? ['/bin/sh', '-c', 'read -r _ && exec "$@"', 'berth-vm', ...argv] : argv;
  const log = openSync(logFile, 'w', 0o600);
  const spawn = (): Child =>
    spawnChild(program, args, {
      env: inheritedEnvironment(),
      stdio: [placed ? 'in' : 'ignore', log, log, ...fds],
    });
  let child: Child;
  try {
    child = netns === undefined ? spawn() : withNamespace(netns, 'net', spawn);
  } finally {
    closeSync(log);
  }
  const identity = identify(child.pid);
  if (identity === undefined) throw new BerthError('internal', `${argv[0]}: ended as soon as it had started`);
  const process = new VmProcess(identity, child.exited, logFile);
  const [release] = child.pipes;
  release?.on('error', () => {});
  try {
    for (const file of cgroups) await writeFile(file, `${child.pid}`);
    release?.end('\n');
  } catch (e: unknown) {
    release?.destroy();
    await process.kill(AbortSignal.timeout(5_000));
    throw during(`${argv[0]}: put into its cgroup`, e);
  }
  return process;
}

/** The last line of a text that says something, without control characters and not too long. */
export function lastLine(text: string): string {
  const line = text
    .split('\n')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: what a firmware and a kernel write to a terminal
    .map((raw) => raw.replace(/\x1b(c|\[[0-9;?]*[A-Za-z])|[\x00-\x1f\x7f]/g, '').trim())
    .findLast((clean) => clean !== '');
  return line?.slice(0, MAX_WORDS) ?? '';
}

async function readTail(file: string): Promise<string> {
  await using handle = await open(file);
  const { size } = await handle.stat();
  const buffer = Buffer.alloc(Math.min(size, TAIL_BYTES));
  const { bytesRead } = await handle.read(buffer, 0, buffer.length, size - buffer.length);
  return buffer.toString('utf8', 0, bytesRead);
}
