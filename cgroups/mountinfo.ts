/** One mounted hierarchy. */
export interface Hierarchy {
  readonly mountpoint: string;
  /** v1 controllers, possibly several (`cpu,cpuacct`); none for `name=systemd` and for v2. */
  readonly controllers: readonly string[];
  readonly version: 1 | 2;
}

const V1_CONTROLLERS = new Set([
  'blkio',
  'cpu',
  'cpuacct',
  'cpuset',
  'devices',
  'freezer',
  'hugetlb',
  'memory',
  'misc',
  'net_cls',
  'net_prio',
  'perf_event',
  'pids',
  'rdma',
]);

function decodeOctal(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/**
 * The cgroup hierarchies mounted at or below `root`, from the text of /proc/self/mountinfo (proc(5)).
 * A hierarchy mounted twice is listed once; the first mount wins.
 */
export function parseHierarchies(mountinfo: string, root: string): Hierarchy[] {
  const byDevice = new Map<string, Hierarchy>();
  for (const line of mountinfo.split('\n')) {
    // Of hundreds of lines, where pods run.
    if (!line.includes(' - cgroup')) continue;
    // The optional fields before " - " vary in number, so the line is cut there first.
    const [before, after] = line.split(' - ', 2);
    const left = before?.split(' ') ?? [];
    const [fsType, , options] = after?.split(' ') ?? [];
    const [device, mountpoint] = [left[2], left[4]];
    if (device === undefined || mountpoint === undefined) continue;
    if (fsType !== 'cgroup' && fsType !== 'cgroup2') continue;
    const path = decodeOctal(mountpoint);
    if (path !== root && !path.startsWith(`${root}/`)) continue;
    if (byDevice.has(device)) continue;
    const controllers =
      fsType === 'cgroup' ? (options ?? '').split(',').filter((o) => V1_CONTROLLERS.has(o)) : [];
    byDevice.set(device, { mountpoint: path, controllers, version: fsType === 'cgroup' ? 1 : 2 });
  }
  return [...byDevice.values()];
}
