import type { ContainerRecord } from '../container/record.ts';
import { messageOf } from '../errors.ts';
import { isReady } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { mapYielding } from '../util/yielding.ts';
import { handlerOf } from './container-stats.ts';
import { podCgroups } from './pod-cgroup.ts';

/** What it works with. */
type Sampled = Pick<
  Services,
  | 'runtimes'
  | 'sandboxes'
  | 'containers'
  | 'cgroups'
  | 'readings'
  | 'guests'
  | 'layerUsage'
  | 'openFiles'
  | 'log'
>;

/** What sampling has cost so far. */
export interface SamplerCost {
  /** Rounds. */
  rounds: number;
  /** Seconds of this thread. */
  seconds: number;
  /** Cgroups read in the last round. */
  cgroups: number;
}

/**
 * Reads the CPU counter of every pod and container once per interval: one small file each, so that a rate
 * is there for whoever asks, and is the same for all of them.
 */
export class Sampler {
  readonly cost: SamplerCost = { rounds: 0, seconds: 0, cgroups: 0 };
  readonly #s: Sampled;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> | undefined;

  constructor(s: Sampled, intervalMs: number) {
    this.#s = s;
    this.#timer = setInterval(() => void this.sample(), intervalMs);
    this.#timer.unref();
  }

  /** One round, joined when one is under way. Never rejects. */
  sample(): Promise<void> {
    this.#running ??= this.#round().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Begins no more rounds and waits for the one under way. Repeatable. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
  }

  async #round(): Promise<void> {
    const { sandboxes, containers, cgroups, readings, guests, layerUsage, openFiles, log } = this.#s;
    const ownCgroup = podCgroups(sandboxes.values());
    const paths = new Set<string>();
    const ids = new Set<string>();
    const running: Pick<ContainerRecord, 'id' | 'cgroup'>[] = [];
    for (const sandbox of sandboxes.values()) {
      if (isReady(sandbox)) paths.add(ownCgroup(sandbox) ?? sandbox.cgroup.path);
    }
    for (const { id, phase, exit, cgroup } of containers.values()) {
      if (phase !== 'live' || exit !== undefined) continue;
      ids.add(id);
      running.push({ id, cgroup });
      paths.add(cgroup.path);
    }
    readings.retain(paths);
    cgroups.retain(paths);
    layerUsage.retain(ids);
    openFiles.retain(ids);
    guests.retain(paths);
    await guests.refresh(running, handlerOf(this.#s));
    let spent = 0;
    await mapYielding(paths, (path) => {
      const began = performance.now();
      try {
        readings.sample(path);
      } catch (e: unknown) {
        log.warn({ cgroup: path, reason: messageOf(e) }, 'the CPU counter of a cgroup could not be read');
      }
      spent += performance.now() - began;
    });
    this.cost.rounds++;
    this.cost.seconds += spent / 1000;
    this.cost.cgroups = paths.size;
  }
}
