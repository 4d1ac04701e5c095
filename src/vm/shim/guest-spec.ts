import { BerthError } from '../../errors.ts';
import { SHARE_PATH } from '../protocol/names.ts';
import { type JsonObject, listOf, type OciMount, type OciSpec, objectOf } from './oci.ts';
import type { GuestVolume, HostVolume } from './volumes.ts';

/** Literal paths of PID namespaces, by which the agent is told which one is meant. */
const POD_PID_NAMESPACE = 'sandbox';
const OF_CONTAINER = 'container:';
/** Propagation as mount(8) names it; the guest's own is private whatever the host's. */
const PROPAGATION = new Set([
  'private',
  'rprivate',
  'slave',
  'rslave',
  'shared',
  'rshared',
  'unbindable',
  'runbindable',
]);
const BIND = new Set(['bind', 'rbind']);
/** A pod's shared memory is the guest's: what berthd and containerd mount there, by an option that volumes have not. */
const SHM = '/dev/shm';
const SHM_OPTION = 'noexec';
/** Files of a cgroup that mean the same in the guest: `memory.oom.group` and `memory.high` are the kubelet's. */
const GUEST_FILES = /^(memory|cpu|pids)\.(?!z?swap)/;
/** Namespaces that a pod's containers share are the guest's own. */
const OF_GUEST = new Set(['network', 'uts', 'ipc', 'user']);

/** What of the host a container mounts, in order. @throws BerthError `unimplemented` naming what cannot work */
export function hostVolumes(host: OciSpec): HostVolume[] {
  refuse(host);
  return host.mounts.filter(isVolume).map((mount) => {
    const { destination, source, options } = mount;
    if (mount.isMapped)
      throw cannot(`mounts: ${destination} with mapped owners`, 'virtiofs does not map them');
    const propagation = options.find((option) => PROPAGATION.has(option)) ?? 'rprivate';
    if (propagation.includes('shared')) {
      throw cannot(
        `mounts: ${destination} with bidirectional propagation`,
        'mounts that a guest makes do not come to the node',
      );
    }
    const readonly = options.includes('rro') ? 'recursive' : options.includes('ro');
    return { source, destination, readonly, follows: propagation.includes('slave') };
  });
}

/**
 * Turns a container's spec for this host into one for the guest: paths are the guest's, and what only the host knows
 * (its cgroups, CPU numbers, namespaces, security modules) is left out.
 *
 * @param volumes what became of {@link hostVolumes}, in their order; `image`: what the image has there is the same
 * @param rootfs the root file system in the guest, where it is not in the share
 */
export function planGuestSpec(
  host: OciSpec,
  id: string,
  volumes: readonly (GuestVolume | 'image')[],
  rootfs = `${SHARE_PATH}/${id}/rootfs`,
): JsonObject {
  const places = volumes.values();
  // The name is the guest's, who is told it before.
  const { hooks, hostname, domainname, ...rest } = host.json;
  const { selinuxLabel, apparmorProfile, ...process } = host.process;
  return {
    ...rest,
    process,
    root: { ...objectOf(host.json.root ?? {}, 'root'), path: rootfs },
    mounts: host.mounts.flatMap((mount) => {
      const volume = isVolume(mount) ? places.next().value : undefined;
      return volume === 'image' ? [] : [guestMount(mount, volume)];
    }),
    linux: guestLinux(host),
  };
}

/** @throws BerthError `unimplemented` for what neither a sandbox nor a container of a virtual machine can have */
export function refuse(host: OciSpec): void {
  for (const [type, name] of [
    ['network', 'network'],
    ['pid', 'PID'],
    ['ipc', 'IPC'],
  ] as const) {
    if (host.namespace(type) === undefined) {
      throw cannot(`linux.namespaces: the node's ${name} namespace`, 'a virtual machine has its own kernel');
    }
  }
  if (host.namespace('user') !== undefined) {
    throw cannot(
      'linux.namespaces: a user namespace',
      "the virtual machine's kernel keeps the node's users apart",
    );
  }
  const [hook] = Object.values(objectOf(host.json.hooks ?? {}, 'hooks')).flatMap((list) =>
    listOf(list, 'hooks'),
  );
  if (hook !== undefined) throw cannot('hooks', 'they would run on the node, where the container is not');
  const { hugepageLimits } = objectOf(host.linux.resources ?? {}, 'linux.resources');
  for (const limit of listOf(hugepageLimits, 'linux.resources.hugepageLimits')) {
    const { pageSize, limit: bytes } = objectOf(limit, 'linux.resources.hugepageLimits');
    // The kubelet sends a limit of 0 for every size that nobody has asked for.
    if (String(bytes) === '0') continue;
    throw cannot(
      `linux.resources.hugepageLimits: ${String(pageSize)}`,
      "the node's huge pages are not in the guest",
    );
  }
  const [device] = listOf(host.linux.devices, 'linux.devices');
  if (device !== undefined) {
    const { path } = objectOf(device, 'linux.devices[0]');
    throw cannot(`linux.devices: ${String(path)}`, 'devices of the node are not in the virtual machine');
  }
}

function cannot(what: string, why: string): BerthError {
  return new BerthError('unimplemented', `${what} is not possible with this runtime handler: ${why}`);
}

function isBind({ type, options }: OciMount): boolean {
  return type === 'bind' || options.some((option) => BIND.has(option));
}

function isVolume(mount: OciMount): boolean {
  return isBind(mount) && !(mount.destination === SHM && mount.options.includes(SHM_OPTION));
}

function guestMount(mount: OciMount, volume: GuestVolume | undefined): JsonObject {
  const { destination, type, source, options } = mount;
  if (!isBind(mount)) return { destination, type, source, options };
  const own = options.filter((option) => !PROPAGATION.has(option) && !BIND.has(option));
  const bound = ['rbind', 'rprivate'];
  if (volume === undefined) return { destination, type: 'bind', source: SHM, options: [...bound, ...own] };
  const others = own.filter((option) => option !== 'ro' && option !== 'rro');
  return {
    destination,
    type: 'bind',
    source: volume.path,
    options: [...bound, ...others, ...(volume.readonly ? ['ro'] : [])],
  };
}

function guestLinux(host: OciSpec): JsonObject {
  const {
    cgroupsPath,
    devices,
    intelRdt,
    mountLabel,
    rootfsPropagation,
    sysctl,
    uidMappings,
    gidMappings,
    timeOffsets,
    ...rest
  } = host.linux;
  return { ...rest, namespaces: guestNamespaces(host), resources: guestResources(host.linux.resources) };
}

function guestNamespaces(host: OciSpec): JsonObject[] {
  const own = host.namespaces.filter(({ type }) => !OF_GUEST.has(type) && type !== 'cgroup');
  return [
    ...own.map(({ type, path }) =>
      type === 'pid' && path !== undefined ? { type, path: guestPidNamespace(path) } : { type },
    ),
    // The guest's tree has the pod's other containers in it.
    { type: 'cgroup' },
  ];
}

/** berthd names the container whose namespace is meant; all other paths are the sandbox's. */
function guestPidNamespace(path: string): string {
  return path.startsWith(OF_CONTAINER) ? path : POD_PID_NAMESPACE;
}

/** Limits, without what names the host's own CPUs, memory nodes, huge pages and disks. */
export function guestResources(resources: unknown): JsonObject {
  const { hugepageLimits, blockIO, network, rdma, cpu, memory, unified, ...rest } = objectOf(
    resources ?? {},
    'linux.resources',
  );
  const files = Object.entries(objectOf(unified ?? {}, 'linux.resources.unified')).filter(([name]) =>
    GUEST_FILES.test(name),
  );
  // The guest has no swap.
  const { swap, swappiness, kernel, kernelTCP, ...ram } = objectOf(memory ?? {}, 'linux.resources.memory');
  const { cpus, mems, realtimePeriod, realtimeRuntime, ...time } = objectOf(cpu ?? {}, 'linux.resources.cpu');
  const more = files.length === 0 ? {} : { unified: Object.fromEntries(files) };
  return { ...rest, cpu: time, memory: ram, ...more };
}
