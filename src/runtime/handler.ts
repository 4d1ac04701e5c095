import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { CgroupDetails, Resources } from '../../cgroups/types.ts';
import type { Attachment, AttachmentSinks } from '../container/attachments.ts';
import type { ContainerRecord } from '../container/record.ts';
import { BerthError } from '../errors.ts';
import type { OpenFiles } from '../metrics/family.ts';
import type { TaskMount } from '../shim/task.ts';
import type { Signal } from '../signals.ts';
import type { Process } from '../spec/types.ts';
import type { ProcessIdentity } from '../sys/process-identity.ts';
import type { VmMemory } from '../vm/memory.ts';

/** What may be known of a container that is asked about. */
export type HandledContainer = Pick<
  ContainerRecord,
  'id' | 'sandboxId' | 'config' | 'logPath' | 'conmon' | 'init'
>;

/** What a container in another kernel uses. What its handler does not tell is left out. */
export interface GuestUsage {
  /** Of its cgroup there, without its processes. */
  details: CgroupDetails;
  /** How many. */
  processes?: bigint;
  openFiles?: OpenFiles;
  /** Of a block device of that kernel. */
  deviceName: (major: number, minor: number) => string;
}

/**
 * One runtime handler: whatever makes pods' processes, be it a program with runc's command line or a containerd
 * shim. The bundle of a container or pause container holds its config.json when it is made; its root file system
 * is mounted.
 *
 * The way that an end is told is the same for all: the log is complete first, then the exit file is
 * written, then what {@link ended} named is over. A mark `oom` in the bundle says that the OOM killer struck.
 */
export interface RuntimeHandler {
  /** The program. */
  readonly path: string;
  /**
   * It makes a pause container for every pod, and looks at what is in the network namespace when it does, as a
   * VM's does. Others make one for a pod whose containers share a PID namespace.
   */
  readonly needsPause: boolean;

  /** It wants the root file systems of containers on disks: what {@link create} is then given. */
  readonly rootDisks?: RootDisksWanted;

  /** Creates and starts a pause container, with /dev/null for stdio. Returns its init's pid. */
  run(id: string, bundle: string, pidFile: string): Promise<number>;

  /**
   * Creates a container whose command does not run yet, and what keeps its stdio.
   *
   * @param disks that make the root file system, where {@link rootDisks} says so
   * @throws RuntimeCreateError when the runtime refused the configuration; BerthError otherwise
   */
  create(container: HandledContainer, disks?: readonly TaskMount[]): Promise<CreatedContainer>;

  start(id: string): Promise<void>;

  /** Whether the container's command was started: false while the init waits for `start`. */
  isStarted(id: string): Promise<boolean>;

  /** Sends a signal to the container's init. */
  kill(id: string, signal: Signal): Promise<void>;

  /**
   * SIGKILL to all processes of a container, where they are in no cgroup of this host.
   *
   * @throws BerthError when the runtime could not be asked
   */
  killAll?(id: string): Promise<void>;

  /** Ends a sandbox in order, before its cgroup is killed, where that loses something. Answers soon; never rejects. */
  shutDown?(sandboxId: string): Promise<void>;

  /**
   * Connects to a TCP port on the loopback of a sandbox, where that is not the network namespace's own.
   *
   * @throws BerthError `unavailable` when nothing listens; the signal's reason
   */
  dial?(sandboxId: string, port: number, signal: AbortSignal): Promise<Socket>;

  /** What a running container uses, where no cgroup of this host tells. @throws BerthError; the signal's reason */
  usage?(id: string, signal: AbortSignal): Promise<GuestUsage>;

  /** Sets the limits that are given, where no cgroup of this host has them. @throws BerthError */
  update?(id: string, resources: Resources): Promise<void>;

  /** Changes what a sandbox has in all, where it is a machine of its own. @throws BerthError */
  resizeSandbox?(sandboxId: string, resources: Resources): Promise<void>;

  /** What the processes of a sandbox's virtual machine take of the host's memory; undefined when it does not run. */
  memory?(sandboxId: string): Promise<VmMemory | undefined>;

  /** Kills what is left of a container or pause container and forgets it; an unknown one counts as removed. */
  delete(id: string): Promise<void>;

  /**
   * Takes up what an earlier berthd left of a sandbox, where there is more to it than its pause process. Not waited
   * for; never throws.
   */
  adopt?(sandboxId: string): void;

  /** True while there is somebody who will tell how the container ends. */
  isMonitored(container: HandledContainer): boolean;

  /**
   * Whether a container has ended although it is monitored, where that can be: its end is about to be told. Answers
   * soon; never rejects.
   */
  hasEnded?(container: HandledContainer): Promise<boolean>;

  /** The process or the promise whose end means that all about the container's end is written. */
  ended(container: HandledContainer): ProcessIdentity | Promise<void> | undefined;

  /**
   * Starts a process in a running container.
   *
   * @throws BerthError `internal` with the runtime's message when there is no such command; the signal's reason
   */
  exec(id: string, process: Process, options: ExecOptions, signal: AbortSignal): Promise<ExecProcess>;

  /** Returns when output goes to a new file of the log's name. Over a file that nobody has moved does nothing. */
  reopenLog(container: HandledContainer): Promise<void>;

  /**
   * Joins a client to the container's streams; output is what comes from now on.
   *
   * @throws Error when the container's stdio is gone
   */
  attach(container: HandledContainer, sinks: AttachmentSinks): Attachment | Promise<Attachment>;

  /** Sets the size of the container's terminal. @throws BerthError `precondition` */
  resizeTerminal(container: HandledContainer, size: TerminalSize): Promise<void>;
}

/** `erofs`: a read-only disk of the image, and a writable one; `block`: one writable disk with all of it. */
export interface RootDisksWanted {
  kind: 'erofs' | 'block';
  /** Bytes that a container can write. */
  freeBytes: bigint;
}

/** A container's processes as they were made, as the host numbers them. */
export interface CreatedContainer {
  /** The container's init. */
  pid: number;
  /** The process that keeps its stdio while berthd is away. */
  monitorPid: number;
}

/** Which streams of a new process are wanted; the others are /dev/null. */
export interface ExecOptions {
  command: string[];
  tty: boolean;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** The size that a new terminal gets before the command runs, if one is known by then. */
  initialSize?: () => TerminalSize | undefined;
}

/** A terminal's size in characters. */
export interface TerminalSize {
  width: number;
  height: number;
}

/** A command that runs in a container. */
export interface ExecProcess {
  /** Resolves with its code, or 128 + signal; never rejects. */
  exited: Promise<number>;
  /** With a terminal, writing is typing. */
  stdin?: Writable;
  /** With a terminal, all output. */
  stdout?: Readable;
  stderr?: Readable;
  /** Without a terminal, does nothing. */
  resize(size: TerminalSize): void;
  /** SIGKILL to the command and, where the runtime can, its process group. Not to be called once it has exited. */
  kill(): void;
  /**
   * Lets go of the streams: the command sees the end of its input and, on writing, a broken pipe; a terminal
   * hangs up, which sends SIGHUP. Repeatable.
   */
  release(): void;
}

/** The runtime refused to create the container; the message is the runtime's own. */
export class RuntimeCreateError extends BerthError {
  constructor(message: string) {
    super('internal', message);
    this.name = 'RuntimeCreateError';
  }
}
