import { BerthError } from '../../../errors.ts';
import type { GuestAddress } from '../../../sys/vsock.ts';
import { AGENT_PORT_NAME, VSOCK_ARGUMENT } from '../../protocol/names.ts';
import type { VmConfig, VmNic } from '../../types.ts';
import {
  type Blockdev,
  type Device,
  type Machine,
  type MemoryBackendMemfd,
  type Netdev,
  switches,
} from './switches.ts';

const MIB = 1n << 20n;
const GIB = 1n << 30n;
/** What a guest's kernel plugs in and out at once on x86. */
export const MEMORY_STEP = 128n * MIB;
/** The guest's last words, kept in QEMU's memory: a guest can never fill the host's disk with them. */
export const CONSOLE_BYTES = 1 << 16;

/**
 * Memory that is added is used at once, and as far as the kernel's own needs allow in a way that lets it be
 * taken away again (Documentation/admin-guide/mm/memory-hotplug.rst).
 */
const ONLINE_ARGS = ['memhp_default_state=online', 'memory_hotplug.online_policy=auto-movable'];

/** The names by which QMP speaks of what the command line made. */
export const ID = {
  ram: 'ram',
  root: 'root',
  console: 'console',
  qmp: 'qmp',
  agent: 'agent',
  moreMemory: 'vmem0',
} as const;

export type MachineType = 'q35' | 'pc' | 'microvm';

/** How the guest sees its root file system: as memory, or as a disk. */
export type RootDevice = 'pmem' | 'virtio-blk';

/** What the configuration and this host decide, for every machine alike. */
export interface QemuSettings {
  program: string;
  machine: MachineType;
  accelerator: 'kvm' | 'tcg';
  rootDevice: RootDevice;
  /** MiB of translated code; only under emulation. */
  translationCache: number;
  /** Whether the kernel copies frames itself (/dev/vhost-net). */
  vhostNet: boolean;
  /** On q35, how many devices can be added to a running machine. */
  hotplugPorts: number;
}

/** What is known only when a machine is about to start. */
export interface Launch {
  settings: QemuSettings;
  config: VmConfig;
  /** Bytes of the root file system's file. */
  rootfsBytes: bigint;
  /** Unix socket that QEMU connects to and speaks QMP on. */
  qmpSocket: string;
  /** Unix socket at which QEMU listens for the agent's host side. */
  agentSocket: string;
  /** Numbers in QEMU of the descriptors of macvtap devices, by the name of their card. */
  tapFds: ReadonlyMap<string, number>;
  /** With the channel `vsock`: the guest's address, and the number in QEMU of the descriptor that has it. */
  vsock?: GuestAddress;
}

/**
 * The whole command line, program first. Pure.
 *
 * @throws BerthError `invalid` for what the machine cannot be
 */
export function qemuArgv(launch: Launch): [string, ...string[]] {
  const { settings, config } = launch;
  check(launch);
  return [
    settings.program,
    ...switches.name({ guest: `berth-${config.id.slice(0, 12)}`, 'debug-threads': true }),
    '-no-user-config',
    '-nodefaults',
    ...['-display', 'none'],
    ...switches.sandbox({
      obsolete: 'deny',
      elevateprivileges: 'deny',
      spawn: 'deny',
      resourcecontrol: 'deny',
    }),
    // A guest that ends, panics or reboots leaves its machine standing until its last words are read.
    ...switches.action({ reboot: 'shutdown', shutdown: 'pause', panic: 'pause' }),
    ...machineSwitches(settings),
    ...sizeSwitches(launch),
    ...bootSwitches(launch),
    ...control(launch),
    ...devices(launch),
  ];
}

/** What a pod may grow to by virtio-mem, a multiple of the step. */
export function growthBytes({ memoryBytes, maxMemoryBytes }: VmConfig): bigint {
  const more = maxMemoryBytes > memoryBytes ? maxMemoryBytes - memoryBytes : 0n;
  return roundUp(more, MEMORY_STEP);
}

export function roundUp(bytes: bigint, step: bigint): bigint {
  return ((bytes + step - 1n) / step) * step;
}

function check({ settings, config, rootfsBytes, vsock }: Launch): void {
  const wrong = (message: string): BerthError => new BerthError('invalid', message);
  if (settings.machine === 'microvm' && settings.accelerator !== 'kvm') {
    throw wrong(
      'machine "microvm" needs KVM: under emulation nothing calibrates its clock; use "q35" or "pc"',
    );
  }
  if (settings.machine === 'microvm' && settings.rootDevice === 'pmem') {
    throw wrong('machine "microvm" has no persistent memory; use the root device "virtio-blk"');
  }
  if (config.memoryBytes % MIB !== 0n) throw wrong(`memory: ${config.memoryBytes} is no multiple of 1 MiB`);
  if (config.vcpus < 1 || config.maxVcpus < config.vcpus) {
    throw wrong(`vcpus: ${config.vcpus} of at most ${config.maxVcpus}`);
  }
  if (settings.rootDevice === 'pmem' && rootfsBytes % (2n * MIB) !== 0n) {
    throw wrong(`${config.boot.rootfs}: ${rootfsBytes} bytes; persistent memory needs a multiple of 2 MiB`);
  }
  if (config.channel === 'vsock' && vsock === undefined) throw wrong('channel "vsock" without an address');
}

function machineSwitches({ machine, accelerator, translationCache }: QemuSettings): string[] {
  const common: Machine = { type: machine, 'memory-backend': ID.ram, 'dump-guest-core': false };
  const board: Machine =
    machine === 'microvm'
      ? { ...common, acpi: true, pcie: true }
      : {
          ...common,
          // Each device that is not there is one that the guest does not probe.
          usb: false,
          vmport: false,
          smm: false,
          smbus: false,
          graphics: false,
          hpet: false,
          i8042: false,
          ...(machine === 'q35' ? { sata: false } : {}),
        };
  return [
    ...switches.machine(board),
    ...(accelerator === 'kvm'
      ? switches.accel({ accel: 'kvm' })
      : switches.accel({ accel: 'tcg', thread: 'multi', 'tb-size': translationCache })),
    ...switches.cpu({ model: accelerator === 'kvm' ? 'host' : 'max' }),
  ];
}

function sizeSwitches({ settings, config, rootfsBytes }: Launch): string[] {
  const { vcpus, maxVcpus, memoryBytes } = config;
  const pmem = settings.rootDevice === 'pmem';
  const growth = growthBytes(config);
  // Room for memory devices, each of which QEMU may move up to the next GiB.
  const maxmem = memoryBytes + growth + (pmem ? roundUp(rootfsBytes, GIB) : 0n);
  return [
    ...switches.smp({ cpus: vcpus, maxcpus: maxVcpus, sockets: 1, cores: maxVcpus, threads: 1 }),
    ...switches.memory({
      size: mebibytes(memoryBytes),
      ...(maxmem > memoryBytes ? { maxmem: mebibytes(roundUp(maxmem, MIB)) } : {}),
    }),
    // Shared, for virtiofsd; and so that the balloon can give pages back by punching holes.
    ...switches.object(memfd(ID.ram, memoryBytes)),
  ];
}

function bootSwitches({ settings, config }: Launch): string[] {
  const { boot, channel, kernelArgs } = config;
  const dax = settings.rootDevice === 'pmem' && boot.rootfsType !== 'squashfs';
  const root =
    settings.rootDevice === 'pmem'
      ? ['root=/dev/pmem0', ...(dax ? ['rootflags=dax'] : [])]
      : ['root=/dev/vda'];
  // Memory devices make the kernel set 64 MiB apart for cards that cannot reach them; there are none here.
  const growing = growthBytes(config) > 0n ? ONLINE_ARGS : [];
  const line = [
    ...boot.kernelArgs,
    'swiotlb=noforce',
    ...growing,
    ...root,
    'ro',
    `rootfstype=${boot.rootfsType}`,
    ...(channel === 'vsock' ? [VSOCK_ARGUMENT] : []),
    ...kernelArgs,
  ];
  return [
    ...['-kernel', boot.kernel],
    ...(boot.initrd === undefined ? [] : ['-initrd', boot.initrd]),
    ...['-append', line.join(' ')],
  ];
}

function control({ config, qmpSocket, agentSocket }: Launch): string[] {
  return [
    ...switches.chardev({ backend: 'socket', id: ID.qmp, path: qmpSocket, server: false }),
    ...switches.mon({ chardev: ID.qmp, mode: 'control' }),
    ...switches.chardev({ backend: 'ringbuf', id: ID.console, size: CONSOLE_BYTES }),
    ...switches.device({ driver: 'isa-serial', chardev: ID.console }),
    ...switches.device({ driver: 'pvpanic' }),
    ...(config.channel === 'vsock'
      ? []
      : [
          ...switches.chardev({
            backend: 'socket',
            id: ID.agent,
            path: agentSocket,
            server: true,
            wait: false,
          }),
          ...switches.device({ driver: 'virtio-serial-pci', id: 'serial0', max_ports: 2 }),
          ...switches.device({
            driver: 'virtserialport',
            bus: 'serial0.0',
            chardev: ID.agent,
            name: AGENT_PORT_NAME,
            nr: 1,
          }),
        ]),
  ];
}

function devices(launch: Launch): string[] {
  const { settings, config, vsock } = launch;
  return [
    ...rootSwitches(launch),
    ...config.disks.flatMap(({ id, path, readOnly }, index) => disk(`disk${index}`, path, readOnly, id)),
    ...config.shares.flatMap(({ tag, socket }, index) => [
      ...switches.chardev({ backend: 'socket', id: `fs${index}`, path: socket, server: false }),
      ...switches.device({ driver: 'vhost-user-fs-pci', chardev: `fs${index}`, tag, 'queue-size': 1024 }),
    ]),
    ...config.nics.flatMap((nic, index) => card(launch, nic, index)),
    ...(config.channel === 'vsock' && vsock !== undefined
      ? switches.device({ driver: 'vhost-vsock-pci', 'guest-cid': vsock.cid, vhostfd: `${vsock.fd}` })
      : []),
    ...switches.object({ 'qom-type': 'rng-random', id: 'rng0', filename: '/dev/urandom' }),
    ...switches.device({ driver: 'virtio-rng-pci', rng: 'rng0' }),
    // The guest tells which pages are free, and they go back to the host.
    ...switches.device({
      driver: 'virtio-balloon-pci',
      'free-page-reporting': true,
      'deflate-on-oom': true,
    }),
    ...growth(config),
    ...(settings.machine === 'q35' ? rootPorts(settings.hotplugPorts) : []),
  ];
}

function rootSwitches({ settings, config, rootfsBytes }: Launch): string[] {
  const { rootfs } = config.boot;
  if (settings.rootDevice === 'virtio-blk') return disk(ID.root, rootfs, true);
  return [
    ...switches.object({
      'qom-type': 'memory-backend-file',
      id: ID.root,
      'mem-path': rootfs,
      size: rootfsBytes,
      // The pages are the host's page cache: one copy for all machines.
      share: true,
      readonly: true,
      dump: false,
    }),
    ...switches.device({ driver: 'virtio-pmem-pci', id: 'pmem0', memdev: ID.root }),
  ];
}

function disk(node: string, file: string, readOnly: boolean, serial?: string): string[] {
  return [
    ...switches.blockdev(fileNode(node, file, readOnly)),
    ...switches.device(diskDevice(node, readOnly, serial)),
  ];
}

/** The block node of a raw file, or of a block device. */
export function fileNode(
  node: string,
  file: string,
  readOnly: boolean,
  driver: 'file' | 'host_device' = 'file',
): Blockdev {
  return {
    driver: 'raw',
    'node-name': node,
    'read-only': readOnly,
    ...(readOnly ? {} : { discard: 'unmap' }),
    'file.driver': driver,
    'file.filename': file,
    'file.aio': 'threads',
    // Images are shared read-only by design, and a writable one has this machine alone.
    ...(readOnly ? { 'file.locking': 'off' } : {}),
  };
}

/** The device of a block node. */
export function diskDevice(node: string, readOnly: boolean, serial?: string): Device {
  return {
    driver: 'virtio-blk-pci',
    id: deviceOf(node),
    drive: node,
    ...(serial === undefined ? {} : { serial }),
    // A full disk of the host's is told to the guest, whose other containers run on; QEMU would stop it.
    ...(readOnly ? { 'share-rw': true } : { werror: 'report' }),
  };
}

/** The id of the device that shows a block node. */
export function deviceOf(node: string): string {
  return `${node}-device`;
}

/** A port behind which a device can be added on q35. */
export function hotplugPort(index: number): string {
  return `port${index}`;
}

function card({ settings, tapFds }: Launch, nic: VmNic, index: number): string[] {
  const id = `net${index}`;
  const fd = tapFds.get(nic.name);
  if (nic.tap.kind === 'macvtap' && fd === undefined) {
    throw new BerthError('invalid', `${nic.name}: ${nic.tap.device} has not been opened`);
  }
  const netdev: Netdev =
    fd === undefined
      ? {
          type: 'tap',
          id,
          ifname: nic.tap.device,
          script: 'no',
          downscript: 'no',
          vhost: settings.vhostNet,
        }
      : { type: 'tap', id, fd: `${fd}`, vhost: settings.vhostNet };
  return [
    ...switches.netdev(netdev),
    ...switches.device({
      driver: 'virtio-net-pci',
      netdev: id,
      mac: nic.mac,
      host_mtu: nic.mtu,
      // The boot ROM is in a package of its own, and nothing boots from the network.
      romfile: '',
    }),
  ];
}

/** Nothing is plugged at first; a resize asks for it. */
function growth(config: VmConfig): string[] {
  const size = growthBytes(config);
  if (size === 0n) return [];
  return [
    ...switches.object({ ...memfd('vmem', size), reserve: false }),
    ...switches.device({
      driver: 'virtio-mem-pci',
      id: ID.moreMemory,
      memdev: 'vmem',
      'requested-size': 0n,
    }),
  ];
}

/** On q35 a device can only be added behind a port that was there at the start. */
function rootPorts(count: number): string[] {
  return Array.from({ length: count }, (_, index) =>
    switches.device({ driver: 'pcie-root-port', id: hotplugPort(index), chassis: index + 1 }),
  ).flat();
}

function memfd(id: string, size: bigint): MemoryBackendMemfd {
  return { 'qom-type': 'memory-backend-memfd', id, size, share: true, dump: false, merge: false };
}

function mebibytes(bytes: bigint): string {
  return `${bytes / MIB}M`;
}
