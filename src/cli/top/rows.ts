import type { ContainerStats__Output as Stats } from '../../../proto/gen/runtime/v1/ContainerStats.ts';
import type { ContainerStatus__Output as Status } from '../../../proto/gen/runtime/v1/ContainerStatus.ts';
import type { PsiStats__Output as Psi } from '../../../proto/gen/runtime/v1/PsiStats.ts';
import type { UInt64Value__Output as Value } from '../../../proto/gen/runtime/v1/UInt64Value.ts';
import { kindOf } from '../../errors.ts';
import type { Client } from '../client.ts';
import { podName } from '../resolve.ts';

/** What one running container uses. What is unknown is undefined. */
export interface TopRow {
  readonly id: string;
  /** `namespace/name`. */
  readonly pod: string;
  readonly name: string;
  /** CPUs in use. */
  readonly cores: number | undefined;
  /** Undefined without a quota, as the other limits without one. */
  readonly coreLimit: number | undefined;
  /** Bytes that cannot be reclaimed. */
  readonly memory: number | undefined;
  readonly memoryLimit: number | undefined;
  readonly swap: number | undefined;
  /** Bytes of the container's own files. */
  readonly disk: number | undefined;
  /** Percent of the last ten seconds in which some task waited. */
  readonly pressure: Readonly<Record<Resource, number | undefined>>;
}

/** What tasks wait for. */
export type Resource = 'cpu' | 'memory' | 'io';

/** Limits are asked for again after so many looks. */
const LIMITS_AGE = 10;

interface Seen {
  usageNs: bigint;
  at: bigint;
  cores: number | undefined;
}

/** Looks at the running containers of a daemon, time after time. */
export class TopReader {
  readonly #client: Client;
  readonly #seen = new Map<string, Seen>();
  readonly #limits = new Map<string, { cores: number | undefined; look: number }>();
  #look = 0;

  constructor(client: Client) {
    this.#client = client;
  }

  /** @throws as the client does */
  async read(): Promise<TopRow[]> {
    this.#look++;
    const running = { filter: { state: { state: 'CONTAINER_RUNNING' } } } as const;
    const [{ containers }, { items: pods }, { stats }] = await Promise.all([
      this.#client.runtime('ListContainers', running),
      this.#client.runtime('ListPodSandbox', {}),
      this.#client.runtime('ListContainerStats', {}),
    ]);
    const byId = new Map(stats.map((one) => [one.attributes?.id ?? '', one]));
    const podById = new Map(pods.map((pod) => [pod.id, pod]));
    const rows = await Promise.all(
      containers.map(async ({ id, pod_sandbox_id, metadata }) => {
        const of = byId.get(id);
        const coreLimit = await this.#coreLimit(id);
        const names = { id, pod: podName(podById.get(pod_sandbox_id)), name: metadata?.name ?? '' };
        return of && { ...names, coreLimit, cores: this.#cores(id, of), ...figures(of) };
      }),
    );
    for (const known of [this.#seen, this.#limits]) {
      for (const id of known.keys()) if (!byId.has(id)) known.delete(id);
    }
    return rows.filter((row) => row !== undefined);
  }

  /** Between this look and the one before; at first the daemon's own rate, which is over a longer time. */
  #cores(id: string, { cpu }: Stats): number | undefined {
    const usage = cpu?.usage_core_nano_seconds;
    if (cpu == null || usage == null) return undefined;
    const [usageNs, at] = [BigInt(usage.value), BigInt(cpu.timestamp)];
    const before = this.#seen.get(id);
    // A daemon may answer the same reading twice.
    if (before !== undefined && at <= before.at) return before.cores;
    const cores =
      before === undefined || usageNs < before.usageNs
        ? cpu.usage_nano_cores && Number(cpu.usage_nano_cores.value) / 1e9
        : Number(usageNs - before.usageNs) / Number(at - before.at);
    this.#seen.set(id, { usageNs, at, cores: cores ?? undefined });
    return cores ?? undefined;
  }

  async #coreLimit(id: string): Promise<number | undefined> {
    const known = this.#limits.get(id);
    if (known !== undefined && this.#look - known.look < LIMITS_AGE) return known.cores;
    try {
      const { status } = await this.#client.runtime('ContainerStatus', { container_id: id });
      const cores = coreLimitOf(status);
      this.#limits.set(id, { cores, look: this.#look });
      return cores;
    } catch (e: unknown) {
      if (kindOf(e) !== 'notFound') throw e;
      return undefined;
    }
  }
}

function coreLimitOf(status: Status | null): number | undefined {
  const { cpu_quota = '0', cpu_period = '0' } = status?.resources?.linux ?? {};
  const [quota, period] = [Number(cpu_quota), Number(cpu_period)];
  return quota > 0 && period > 0 ? quota / period : undefined;
}

function figures({ cpu, memory, swap, io, writable_layer: layer }: Stats) {
  const used = number(memory?.working_set_bytes);
  const left = number(memory?.available_bytes);
  return {
    memory: used,
    // Some daemons say 0 for no limit.
    memoryLimit: used === undefined || !left ? undefined : used + left,
    swap: number(swap?.swap_usage_bytes),
    disk: number(layer?.used_bytes),
    pressure: { cpu: waiting(cpu?.psi), memory: waiting(memory?.psi), io: waiting(io?.psi) },
  };
}

function number(value: Value | null | undefined): number | undefined {
  return value == null ? undefined : Number(value.value);
}

function waiting(psi: Psi | null | undefined): number | undefined {
  return psi?.Some?.Avg10;
}
