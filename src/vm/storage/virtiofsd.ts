import { closeSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { BerthError } from '../../errors.ts';
import { hardLimits } from '../../spec/rlimits.ts';
import { childrenOf } from '../../sys/descendants.ts';
import { run } from '../../sys/exec.ts';
import { type ProcessIdentity, signal } from '../../sys/process-identity.ts';
import { listenForChild } from '../../sys/unix-socket.ts';
import { orAborted } from '../../util/abort.ts';
import { startVmProcess, type VmProcess } from '../process.ts';
import type { VmEnd } from '../types.ts';

const VERSION_MS = 5_000;
/** Files that a guest may have open at a time, if the host lets it. */
const MAX_FILES = 1_000_000;
/** Until the child of a virtiofsd has been reaped, milliseconds. */
const REAP_MS = 2_000;
/** The descriptor of the socket in virtiofsd. */
const SOCKET_FD = 3;

/** QEMU's own program, written in C, or its successor in Rust: they differ in their switches. */
export type VirtiofsdKind = 'c' | 'rust';

/**
 * What the guest may keep of a file's data and attributes: `auto` for about a second (data until the file is
 * opened again), `none` nothing, `always` everything, which fits only what nobody else changes.
 */
export type VirtiofsCache = 'auto' | 'none' | 'always';

export interface VirtiofsdOptions {
  program: string;
  kind: VirtiofsdKind;
  cache: VirtiofsCache;
  /** The directory to be shared: the root of a shared mount (mount_namespaces(7)), so that later mounts reach it. */
  dir: string;
  /** Unix socket at which the hypervisor connects, once; at most 107 bytes. Must not exist. */
  socket: string;
  logFile: string;
  /** As in `VmConfig`. */
  cgroups: readonly string[];
}

/** The program's kind, by what `--version` says. @throws BerthError, SyscallError when it cannot be run */
export async function virtiofsdKind(program: string, abort: AbortSignal): Promise<VirtiofsdKind> {
  const result = await run([program, '--version'], {
    signal: abort,
    timeoutMs: VERSION_MS,
    maxOutput: 1 << 12,
  });
  const said = `${result.stdout}${result.stderr}`;
  if (!/virtiofsd/.test(said)) throw new BerthError('invalid', `${program} is no virtiofsd: ${said}`);
  // The C program is versioned with QEMU and names the FUSE interface.
  return /FUSE/.test(said) ? 'c' : 'rust';
}

/**
 * The command line; pure.
 *
 * Both programs put themselves into namespaces of their own (mount, PID, network), make the shared directory
 * their root, keep the few capabilities that a file server needs and filter their system calls. Their mount
 * namespace is a slave of the host's: what is mounted or unmounted below the directory later reaches it.
 *
 * Mounts in it are announced, so that the guest sees each as a file system of its own: files of two of them
 * may have the same inode number.
 */
export function virtiofsdArgv(
  { program, kind, cache, dir }: Pick<VirtiofsdOptions, 'program' | 'kind' | 'cache' | 'dir'>,
  maxFiles: number,
): [string, ...string[]] {
  const common = [program, `--fd=${SOCKET_FD}`, `--rlimit-nofile=${maxFiles}`] as const;
  if (kind === 'rust') {
    return [
      ...common,
      ...[`--shared-dir=${dir}`, `--cache=${cache === 'none' ? 'never' : cache}`],
      ...['--sandbox=namespace', '--seccomp=kill', '--announce-submounts', '--xattr', '--log-level=error'],
    ];
  }
  return [
    ...common,
    '-f',
    ...['-o', `source=${dir.replace(/[\\,]/g, '\\$&')}`, '-o', `cache=${cache}`, '-o', 'sandbox=namespace'],
    ...['-o', 'announce_submounts', '-o', 'xattr', '-o', 'log_level=err'],
  ];
}

/** The file server of one virtual machine. */
export class Virtiofsd {
  readonly process: ProcessIdentity;
  /** Settles as soon as it is gone, as it is after the hypervisor; never rejects. */
  readonly ended: Promise<VmEnd>;
  readonly #child: VmProcess;

  private constructor(child: VmProcess) {
    this.#child = child;
    this.process = child.identity;
    this.ended = child.exited.then(async (status) => ({
      ...status,
      reason: `virtiofsd: ${await child.lastWords()}`,
    }));
  }

  /** Starts one. The hypervisor may connect at once. @throws SyscallError, BerthError; nothing is left then */
  static async start(options: VirtiofsdOptions): Promise<Virtiofsd> {
    // Only CAP_SYS_RESOURCE could go beyond the limit of this process.
    const limits = hardLimits(await readFile('/proc/self/limits', 'latin1'));
    const argv = virtiofsdArgv(
      options,
      Math.min(MAX_FILES, Number(limits.get('RLIMIT_NOFILE') ?? MAX_FILES)),
    );
    const fd = listenForChild(options.socket);
    try {
      return new Virtiofsd(
        await startVmProcess(argv, {
          logFile: options.logFile,
          netns: undefined,
          cgroups: options.cgroups,
          fds: [fd],
        }),
      );
    } catch (e: unknown) {
      await rm(options.socket, { force: true });
      throw e;
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Ends it and waits. What serves the files is a child of what was started, which would outlive that; and
   * that one reaps it and ends. Repeatable.
   *
   * @throws the signal's reason
   */
  async stop(abort: AbortSignal): Promise<void> {
    const children = await childrenOf(this.process);
    for (const child of children) signal(child, 'SIGKILL');
    if (children.length > 0) {
      const patience = AbortSignal.any([abort, AbortSignal.timeout(REAP_MS)]);
      await orAborted(this.ended, patience).catch(() => abort.throwIfAborted());
    }
    await this.#child.kill(abort);
    await orAborted(this.ended, abort);
  }
}
