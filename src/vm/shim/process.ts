import { BerthError } from '../../errors.ts';
import type { ProcessEnd } from '../../shim/task.ts';
import type { ProcessStdio, StdioPaths } from './stdio.ts';

/** How output that is held open is waited for after the end of its process, milliseconds. */
const DRAIN_MS = 10_000;

/**
 * The life of one process of a shim: a sandbox, a container's first process or a command.
 *
 * ```
 * created ── start ──► running ── end ──► stopped ── delete ──►
 *    └───────────────────── end ─────────────┘
 * ```
 */
export class TaskProcess {
  /** The sandbox's or container's id. */
  readonly id: string;
  /** Empty for the first process of a container. */
  readonly execId: string;
  readonly paths: StdioPaths;
  /** As the guest numbers it, of a command; the hypervisor's for a container. 0 before there is one. */
  pid = 0;
  #started = false;
  #starting: Promise<void> | undefined;
  #end: ProcessEnd | undefined;
  #stdio: ProcessStdio | undefined;
  readonly #ended = Promise.withResolvers<ProcessEnd>();

  constructor(id: string, execId: string, paths: StdioPaths) {
    this.id = id;
    this.execId = execId;
    this.paths = paths;
  }

  get status(): 'CREATED' | 'RUNNING' | 'STOPPED' {
    if (this.#end !== undefined) return 'STOPPED';
    return this.#started ? 'RUNNING' : 'CREATED';
  }

  get end(): ProcessEnd | undefined {
    return this.#end;
  }

  get ended(): Promise<ProcessEnd> {
    return this.#ended.promise;
  }

  /** @throws BerthError `precondition` unless it is created */
  checkCreated(): void {
    if (this.status !== 'CREATED')
      throw new BerthError('precondition', `the process is ${this.status.toLowerCase()}, not created`);
  }

  /** Never rejects; what is told of the process before it has resolved came too early. */
  get starting(): Promise<void> | undefined {
    return this.#starting;
  }

  /** Waits for a start. @throws what the start throws */
  async whileStarting(start: Promise<void>): Promise<void> {
    this.#starting = start.catch(() => {});
    await start;
  }

  started(pid: number): void {
    this.#started = true;
    this.pid = pid;
  }

  attach(stdio: ProcessStdio): void {
    this.#stdio = stdio;
  }

  closeStdin(): void {
    this.#stdio?.closeStdin();
  }

  /** @returns false when its end is known already */
  finish(end: ProcessEnd): boolean {
    if (this.#end !== undefined) return false;
    this.#end = end;
    this.#ended.resolve(end);
    return true;
  }

  /** Waits until all its output is copied, while there is hope, and lets go of its stdio. Repeatable. */
  async drained(): Promise<void> {
    const stdio = this.#stdio;
    if (stdio === undefined) return;
    const { promise: patience, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, DRAIN_MS);
    await Promise.race([stdio.copied, patience]);
    clearTimeout(timer);
    stdio.close();
  }

  close(): void {
    this.#stdio?.close();
  }
}
