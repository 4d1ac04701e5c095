import type { CgroupUsage } from '../../cgroups/index.ts';
import type { Services } from '../services.ts';
import type { ContainerRecord } from './record.ts';
import type { LayerUsage } from './writable-layer-usage.ts';

/** One reading of a container's use of the node. */
export interface ContainerStats {
  readonly record: ContainerRecord;
  readonly cgroup: CgroupUsage;
  /** CPU use since the reading before, nanoseconds per second; undefined at the first one. */
  readonly usageNanoCores?: bigint;
  readonly writableLayer?: LayerUsage;
}

/** Readings closer together than this say nothing of the rate; nanoseconds. */
const MIN_INTERVAL_NS = 100_000_000n;

/** Remembers one CPU reading per container, to tell the rate at the next one. */
export class CpuRates {
  readonly #last = new Map<string, { timestampNs: bigint; usageNs: bigint; rate?: bigint }>();

  /** Nanocores since the last reading that is old enough, or undefined. */
  rate(id: string, { timestampNs, cpu }: CgroupUsage): bigint | undefined {
    if (cpu.usageNs === undefined) return undefined;
    const last = this.#last.get(id);
    if (last === undefined) {
      this.#last.set(id, { timestampNs, usageNs: cpu.usageNs });
      return undefined;
    }
    const elapsed = timestampNs - last.timestampNs;
    if (elapsed < MIN_INTERVAL_NS) return last.rate;
    const rate = ((cpu.usageNs - last.usageNs) * 1_000_000_000n) / elapsed;
    const known = rate < 0n ? {} : { rate };
    this.#last.set(id, { timestampNs, usageNs: cpu.usageNs, ...known });
    return known.rate;
  }

  forget(id: string): void {
    this.#last.delete(id);
  }
}

/** A container's figures now; undefined when it has no cgroup (any more). */
export async function containerStats(s: Services, id: string): Promise<ContainerStats | undefined> {
  const record = s.containers.get(id);
  if (record?.phase !== 'live') return undefined;
  const cgroup = s.cgroups.usage(record.cgroup.path);
  if (cgroup === undefined) return undefined;
  const rate = s.cpuRates.rate(id, cgroup);
  return {
    record,
    cgroup,
    writableLayer: await s.layerUsage.of(id, s.paths.container(id).upper),
    ...(rate === undefined ? {} : { usageNanoCores: rate }),
  };
}
