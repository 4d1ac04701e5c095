import type { CgroupManager } from '../../cgroups/types.ts';
import type { ContainerRecord } from '../container/record.ts';
import { messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { GuestUsage, RuntimeHandler } from '../runtime/handler.ts';

/** A guest that does not answer by then has no figures this time, milliseconds. */
const ANSWER_MS = 2_000;

type Asked = Pick<ContainerRecord, 'id' | 'cgroup'>;
type HandlerOf = (container: Asked) => RuntimeHandler | undefined;

/**
 * The last figures of containers that are in no cgroup of this host, by the cgroup path that they have on record, so
 * that they are read as all others are.
 */
export class GuestFigures implements Pick<CgroupManager, 'usage' | 'cpuUsageNs'> {
  readonly #cgroups: Pick<CgroupManager, 'exists' | 'usage' | 'cpuUsageNs'>;
  readonly #log: Logger;
  readonly #figures = new Map<string, { at: number; usage: GuestUsage }>();

  constructor(cgroups: Pick<CgroupManager, 'exists' | 'usage' | 'cpuUsageNs'>, log: Logger) {
    this.#cgroups = cgroups;
    this.#log = log;
  }

  /**
   * Asks for the figures of those containers whose handler must be asked. Never rejects.
   *
   * @param maxAgeMs figures that are not older stay
   */
  async refresh(containers: readonly Asked[], handlerOf: HandlerOf, maxAgeMs = 0): Promise<void> {
    await Promise.all(
      containers.map((container) => this.#refresh(container, handlerOf(container), maxAgeMs)),
    );
  }

  of(path: string): GuestUsage | undefined {
    return this.#figures.get(path)?.usage;
  }

  usage(path: string): ReturnType<CgroupManager['usage']> {
    return this.of(path)?.details ?? this.#cgroups.usage(path);
  }

  cpuUsageNs(path: string): bigint | undefined {
    return this.of(path)?.details.cpu.usageNs ?? this.#cgroups.cpuUsageNs(path);
  }

  /** Forgets all others. */
  retain(paths: ReadonlySet<string>): void {
    for (const path of this.#figures.keys()) if (!paths.has(path)) this.#figures.delete(path);
  }

  async #refresh(
    { id, cgroup: { path } }: Asked,
    handler: RuntimeHandler | undefined,
    maxAgeMs: number,
  ): Promise<void> {
    const known = this.#figures.get(path);
    if (known !== undefined && performance.now() - known.at < maxAgeMs) return;
    if (handler?.usage === undefined || (known === undefined && this.#cgroups.exists(path))) return;
    try {
      const usage = await handler.usage(id, AbortSignal.timeout(ANSWER_MS));
      this.#figures.set(path, { at: performance.now(), usage });
    } catch (e: unknown) {
      // Its last figures, which tell when they were measured, are better than none while it is busy.
      this.#log.debug({ container: id, reason: messageOf(e) }, 'a guest does not tell what a container uses');
    }
  }
}
