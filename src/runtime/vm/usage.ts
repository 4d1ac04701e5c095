import { parseDetails } from '../../../cgroups/index.ts';
import type { GuestFigures } from '../../shim/task.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import type { GuestUsage } from '../handler.ts';

/** A container's figures as berth's own shim tells them, read as if its cgroup were one of this host. */
export function toUsage(figures: GuestFigures): GuestUsage {
  const { files, devices, processes, descriptors, sockets, max_open_files } = figures;
  const details = parseDetails(files);
  const { memory } = details;
  return {
    details: {
      // The host's clock, by which the others are told.
      timestampNs: nowNs(),
      ...details,
      // The guest has no swap, whatever its limits say and the node has.
      memory: { ...memory, swapLimitBytes: memory.swapUsageBytes === undefined ? undefined : 0n },
      processes: undefined,
    },
    processes: BigInt(processes),
    openFiles: {
      descriptors: BigInt(descriptors),
      sockets: sockets === undefined ? undefined : BigInt(sockets),
      softLimit: max_open_files === undefined ? undefined : BigInt(max_open_files),
    },
    deviceName: (major, minor) => devices[`${major}:${minor}`] ?? `${major}:${minor}`,
  };
}
