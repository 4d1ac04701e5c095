import type { CgroupDetails } from '../../cgroups/types.ts';
import type { InterfaceCounters } from '../sys/namespaces.ts';

/**
 * Everything that was measured for one set of series: a container, a pod's cgroup, or a pod's network. What
 * is absent has no samples.
 */
export interface Measured {
  readonly cgroup?: CgroupDetails;
  /** How many, in the cgroup and those below it. */
  readonly processes?: bigint;
  /** Nanoseconds since the epoch. */
  readonly startedAt?: bigint;
  readonly lastSeen?: bigint;
  readonly interfaces?: readonly InterfaceCounters[];
  readonly filesystem?: FilesystemUse;
  readonly openFiles?: OpenFiles;
  /** `/dev/sda` for its numbers. */
  readonly deviceName: (major: number, minor: number) => string;
}

/** A container's part of the file system that holds writable layers. */
export interface FilesystemUse {
  readonly device: string;
  readonly usedBytes: bigint | undefined;
  /** Of the whole file system. */
  readonly sizeBytes: bigint;
  readonly inodes: bigint;
  readonly inodesFree: bigint;
}

/** What a container's processes have open. */
export interface OpenFiles {
  readonly descriptors: bigint | undefined;
  readonly sockets: bigint | undefined;
  /** Soft limit of its first process; undefined when unlimited. */
  readonly softLimit: bigint | undefined;
}

/** One value of a family, with the values of the family's own labels. */
export interface Sample {
  readonly labels: readonly string[];
  readonly value: bigint;
}

/** All series of one name. */
export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  /** Beside the base labels. */
  readonly labels: readonly string[];
  /** What a value counts: nanoseconds are told as seconds. */
  readonly unit: 'plain' | 'nanoseconds';
  read(measured: Measured): readonly Sample[];
}

/** How a family differs from one without labels that counts what it says. */
export type FamilyOptions = Partial<Pick<Family, 'labels' | 'unit'>>;

/** A sample of what is known. */
export function sample(value: bigint | undefined, ...labels: string[]): readonly Sample[] {
  return value === undefined ? [] : [{ labels, value }];
}

/** @param name without the prefix `container_` */
export function family(
  type: Family['type'],
  name: string,
  help: string,
  read: Family['read'],
  options: FamilyOptions = {},
): Family {
  return { name: `container_${name}`, help, type, labels: [], unit: 'plain', read, ...options };
}

/** A family with one series for each cgroup. */
export function ofCgroup(
  type: Family['type'],
  name: string,
  help: string,
  value: (cgroup: CgroupDetails) => bigint | undefined,
  options: FamilyOptions = {},
): Family {
  return family(
    type,
    name,
    help,
    ({ cgroup }) => (cgroup === undefined ? [] : sample(value(cgroup))),
    options,
  );
}
