import type { CgroupUsage } from '../../cgroups/index.ts';
import type { ContainerRecord } from '../container/record.ts';
import type { RuntimeHandler } from '../runtime/handler.ts';
import type { Services } from '../services.ts';
import { mapYielding } from '../util/yielding.ts';
import type { Reading } from './readings.ts';
import { nodeSwapBytes, swapAvailableBytes } from './swap.ts';
import { type LayerUsage, writableLayer } from './writable-layer-usage.ts';

/** One reading of a container's use of the node. What is unknown is undefined, never 0. */
export interface ContainerStats {
  readonly record: ContainerRecord;
  readonly cgroup: CgroupUsage;
  /** CPU use, nanoseconds per second; undefined until two samples are there. */
  readonly usageNanoCores: bigint | undefined;
  readonly swapAvailableBytes: bigint | undefined;
  readonly writableLayer: LayerUsage | undefined;
}

/**
 * How old a reading may be that a list answers, milliseconds. What asks for lists asks every ten seconds or
 * so, several of them at once (kubelet, its summary, Prometheus); timestamps tell when a file was read.
 */
export const LIST_AGE_MS = 1_000;

/** A container's figures now; undefined when it has ended, or ends while it is read. */
export async function containerStats(
  s: Services,
  record: ContainerRecord,
): Promise<ContainerStats | undefined> {
  await s.guests.refresh([record], handlerOf(s));
  return complete(s, record, s.readings.read(record.cgroup.path), nodeSwapBytes());
}

/** The same for many; those that end meanwhile are left out. */
export async function listContainerStats(
  s: Services,
  records: readonly ContainerRecord[],
  maxAgeMs = LIST_AGE_MS,
  nodeSwap = nodeSwapBytes(),
): Promise<ContainerStats[]> {
  await s.guests.refresh(records, handlerOf(s), maxAgeMs);
  const readings = await mapYielding(records, ({ cgroup }) => s.readings.read(cgroup.path, maxAgeMs));
  // Side by side: the first look at a large layer takes a while.
  const all = await Promise.all(records.map((record, i) => complete(s, record, readings[i], nodeSwap)));
  return all.filter((stats) => stats !== undefined);
}

/** Who is to be asked about a container that is in no cgroup of this host. */
export function handlerOf({
  runtimes,
  sandboxes,
  containers,
}: Pick<Services, 'runtimes' | 'sandboxes' | 'containers'>) {
  return ({ id }: { id: string }): RuntimeHandler | undefined => {
    const sandbox = sandboxes.get(containers.get(id)?.sandboxId ?? '');
    return sandbox === undefined ? undefined : runtimes.get(sandbox.runtimeHandler);
  };
}

async function complete(
  s: Services,
  container: ContainerRecord,
  reading: Reading | undefined,
  nodeSwap: bigint | undefined,
): Promise<ContainerStats | undefined> {
  if (reading === undefined) return undefined;
  const { id } = container;
  const usage = await s.layerUsage.of(id, writableLayer(s.paths, container));
  // The cgroup of one that has ended is about to be removed, and tells of nothing any more.
  const record = s.containers.get(id);
  if (record?.phase !== 'live' || record.exit !== undefined) return undefined;
  return {
    record,
    cgroup: reading.usage,
    usageNanoCores: reading.nanoCores,
    swapAvailableBytes: swapAvailableBytes(reading.usage.memory, nodeSwap),
    writableLayer: usage,
  };
}
