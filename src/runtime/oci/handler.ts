import type { AttachLock } from '../../../cgroups/index.ts';
import type { Attachment, AttachmentSinks, Attachments } from '../../container/attachments.ts';
import type { Paths } from '../../paths.ts';
import type { Process } from '../../spec/types.ts';
import type { Poller } from '../../sys/poller.ts';
import { isAlive, type ProcessIdentity } from '../../sys/process-identity.ts';
import type {
  CreatedContainer,
  ExecOptions,
  ExecProcess,
  HandledContainer,
  RuntimeHandler,
  TerminalSize,
} from '../handler.ts';
import { createWithConmon, reopenLog, resizeTerminal } from './conmon.ts';
import { startExec } from './exec.ts';
import { OciRuntime, type OciRuntimeOptions } from './runtime.ts';

/** What an {@link OciHandler} works with. */
export interface OciHandlerOptions extends OciRuntimeOptions {
  /** The conmon program. */
  conmon: string;
  paths: Paths;
  poller: Poller;
  attachments: Attachments;
  /** Held ready while the program moves processes to cgroups. */
  attachLock: AttachLock;
}

/**
 * The handler of a program with runc's command line. Each container has a conmon that keeps its stdio and log and
 * writes its exit file, so that nothing of it depends on berthd.
 */
export class OciHandler extends OciRuntime implements RuntimeHandler {
  /** It joins pinned namespaces as they are, whatever is in them. */
  readonly needsPause = false;
  readonly #options: OciHandlerOptions;

  constructor(options: OciHandlerOptions) {
    super(options);
    this.#options = options;
  }

  override run(id: string, bundle: string, pidFile: string): Promise<number> {
    return this.#options.attachLock.ready(super.run(id, bundle, pidFile));
  }

  async create({ id, config, logPath }: HandledContainer): Promise<CreatedContainer> {
    const { conmon, paths } = this.#options;
    const creating = createWithConmon({
      conmon,
      runtime: this,
      id,
      name: config.metadata.name,
      paths: paths.container(id),
      exitsDir: paths.exits,
      logPath,
      tty: config.tty,
      stdin: config.stdin,
      stdinOnce: config.stdinOnce,
    });
    const { pid, conmonPid } = await this.#options.attachLock.ready(creating);
    return { pid, monitorPid: conmonPid };
  }

  isMonitored({ conmon }: HandledContainer): boolean {
    return conmon !== undefined && isAlive(conmon);
  }

  /**
   * conmon: it writes the exit file last, after draining stdio and syncing the log, and then ends; so its end is the
   * one sign for both ways out: with an exit file the container has exited, without one the monitor itself was
   * killed.
   */
  ended({ conmon }: HandledContainer): ProcessIdentity | undefined {
    return conmon;
  }

  exec(id: string, process: Process, options: ExecOptions, signal: AbortSignal): Promise<ExecProcess> {
    const starting = startExec({ ...this.#options, runtime: this }, id, process, options, signal);
    return this.#options.attachLock.ready(starting);
  }

  reopenLog({ id, logPath }: HandledContainer): Promise<void> {
    return reopenLog(this.#options.paths.container(id), logPath);
  }

  attach({ id, config }: HandledContainer, sinks: AttachmentSinks): Attachment {
    const { attachments, paths } = this.#options;
    return attachments.attach(id, paths.container(id).attach, config.stdin && config.stdinOnce, sinks);
  }

  resizeTerminal({ id }: HandledContainer, size: TerminalSize): Promise<void> {
    return resizeTerminal(this.#options.paths.container(id), size);
  }
}
