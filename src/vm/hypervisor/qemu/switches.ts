/**
 * The switches of QEMU's command line that berth uses, one type each, with QEMU's own names for switches
 * and properties (qemu(1), `qemu-system-x86_64 -device <name>,help`). A value that is undefined is left out,
 * a boolean becomes `on` or `off`, and a comma in a value is doubled, as QEMU reads it.
 *
 * The same device, netdev and blockdev types are the arguments of QMP's `device_add`, `netdev_add` and
 * `blockdev-add`.
 */

/** Sizes are bytes. */
type Value = string | number | bigint | boolean | undefined;

export interface Machine {
  type: string;
  'memory-backend': string;
  usb?: boolean;
  vmport?: boolean;
  smm?: boolean;
  smbus?: boolean;
  sata?: boolean;
  hpet?: boolean;
  graphics?: boolean;
  i8042?: boolean;
  acpi?: boolean;
  pcie?: boolean;
  'dump-guest-core'?: boolean;
  'mem-merge'?: boolean;
}

/** `tb-size` is in MiB: what translated code may take. */
export type Accel = { accel: 'kvm' } | { accel: 'tcg'; thread: 'multi'; 'tb-size': number };

export interface Cpu {
  model: string;
}

export interface Smp {
  cpus: number;
  maxcpus: number;
  sockets: number;
  cores: number;
  threads: number;
}

/** `-m`; `maxmem` makes room for devices that are memory. */
export interface Memory {
  size: string;
  maxmem?: string;
}

export interface MemoryBackendMemfd {
  'qom-type': 'memory-backend-memfd';
  id: string;
  size: bigint;
  share: boolean;
  dump: boolean;
  merge: boolean;
  reserve?: boolean;
}

export interface MemoryBackendFile {
  'qom-type': 'memory-backend-file';
  id: string;
  'mem-path': string;
  size: bigint;
  share: boolean;
  readonly: boolean;
  dump: boolean;
}

export interface RngRandom {
  'qom-type': 'rng-random';
  id: string;
  filename: string;
}

export type QemuObject = MemoryBackendMemfd | MemoryBackendFile | RngRandom;

export type Chardev =
  | { backend: 'socket'; id: string; path: string; server: boolean; wait?: boolean }
  /** `size` must be a power of two. */
  | { backend: 'ringbuf'; id: string; size: number };

export interface Mon {
  chardev: string;
  mode: 'control';
}

export interface Blockdev {
  'node-name': string;
  driver: 'raw';
  'read-only': boolean;
  'auto-read-only'?: boolean;
  discard?: 'unmap';
  'file.driver': 'file' | 'host_device';
  'file.filename': string;
  'file.aio'?: 'threads';
  'file.locking'?: 'off';
  'cache.direct'?: boolean;
  'cache.no-flush'?: boolean;
}

export type Netdev =
  | { type: 'tap'; id: string; fd: string; vhost: boolean; vhostfd?: string }
  | {
      type: 'tap';
      id: string;
      ifname: string;
      script: 'no';
      downscript: 'no';
      vhost: boolean;
    };

/** One of them is one device; `id` and `bus` are common to all. */
export type Device = { id?: string; bus?: string } & (
  | { driver: 'isa-serial'; chardev: string }
  | { driver: 'pvpanic' }
  | { driver: 'pcie-root-port'; chassis: number; addr?: string }
  | { driver: 'virtio-pmem-pci'; memdev: string }
  | {
      driver: 'virtio-blk-pci';
      drive: string;
      serial?: string;
      'share-rw'?: boolean;
      werror?: 'report';
      bootindex?: number;
    }
  | { driver: 'virtio-net-pci'; netdev: string; mac: string; host_mtu?: number; romfile: '' }
  | { driver: 'virtio-serial-pci'; max_ports: number }
  | { driver: 'virtserialport'; chardev: string; name: string; nr: number }
  | { driver: 'vhost-vsock-pci'; 'guest-cid': number; vhostfd: string }
  | { driver: 'vhost-user-fs-pci'; chardev: string; tag: string; 'queue-size': number }
  | { driver: 'virtio-rng-pci'; rng: string }
  | { driver: 'virtio-balloon-pci'; 'free-page-reporting': boolean; 'deflate-on-oom': boolean }
  | {
      driver: 'virtio-mem-pci';
      memdev: string;
      'requested-size': bigint;
      'block-size'?: bigint;
    }
);

/** Which system calls QEMU may no longer make (qemu(1), -sandbox). */
export interface Sandbox {
  obsolete: 'deny';
  elevateprivileges: 'deny';
  spawn: 'deny';
  resourcecontrol: 'deny';
}

/** What QEMU does when the guest does something (qemu(1), -action). */
export interface Action {
  reboot: 'shutdown';
  shutdown: 'pause';
  panic: 'pause';
}

export interface Name {
  guest: string;
  'debug-threads': boolean;
}

/** `first,key=value,…`: QEMU's key-value list, of which `first` has no key. */
export function keyValues(first: string | undefined, values: Readonly<Record<string, Value>>): string {
  const parts = first === undefined ? [] : [escapeValue(first)];
  for (const [key, value] of Object.entries(values)) {
    if (value === undefined) continue;
    const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : escapeValue(`${value}`);
    parts.push(`${key}=${text}`);
  }
  return parts.join(',');
}

function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/** A switch and its list. `head` names the property whose value stands first without its key. */
function list(name: string, head: string, options: Readonly<Record<string, Value>>): string[] {
  const { [head]: first, ...rest } = options;
  return [name, keyValues(`${first}`, rest)];
}

export const switches = {
  name: (o: Name) => list('-name', 'guest', { ...o }),
  machine: (o: Machine) => list('-machine', 'type', { ...o }),
  accel: (o: Accel) => list('-accel', 'accel', { ...o }),
  cpu: (o: Cpu) => list('-cpu', 'model', { ...o }),
  smp: (o: Smp) => list('-smp', 'cpus', { ...o }),
  memory: (o: Memory) => list('-m', 'size', { ...o }),
  object: (o: QemuObject) => list('-object', 'qom-type', { ...o }),
  chardev: (o: Chardev) => list('-chardev', 'backend', { ...o }),
  mon: (o: Mon) => list('-mon', 'chardev', { ...o }),
  blockdev: (o: Blockdev) => list('-blockdev', 'driver', { ...o }),
  netdev: (o: Netdev) => list('-netdev', 'type', { ...o }),
  device: (o: Device) => list('-device', 'driver', { ...o }),
  sandbox: (o: Sandbox) => ['-sandbox', keyValues('on', { ...o })],
  action: (o: Action) => ['-action', keyValues(undefined, { ...o })],
};
