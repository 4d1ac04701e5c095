import type { Duplex } from 'node:stream';
import type { ProcessIdentity } from '../sys/process-identity.ts';

/** What a virtual machine boots. Paths are the host's. */
export interface GuestImage {
  /** A bzImage, or an uncompressed vmlinux with a PVH entry note. */
  kernel: string;
  initrd?: string;
  /** A file that every virtual machine of this image reads and none writes. */
  rootfs: string;
  rootfsType: 'erofs' | 'ext4' | 'squashfs';
  /** What this image needs on the kernel's command line, root device apart. */
  kernelArgs: readonly string[];
}

/** A network card of the guest. */
export interface VmNic {
  /** The name inside the guest, and in the pod's network namespace that of the interface it stands for. */
  name: string;
  /** `02:00:00:00:00:01`: of the interface that it stands for. */
  mac: string;
  /** Bytes. */
  mtu: number;
  /** The device in the pod's network namespace through which frames go. */
  tap: VmTap;
}

/** A tap is opened by its name, a macvtap by its character device, which has the path `node`. */
export type VmTap = { kind: 'tap'; device: string } | { kind: 'macvtap'; device: string; node: string };

/** A block device of the guest. */
export interface VmDisk {
  /** Its serial number, by which the guest finds it in /dev/disk or /sys/block/<x>/serial: at most 20 bytes. */
  id: string;
  path: string;
  format: 'raw';
  readOnly: boolean;
}

/** A directory of the host that the guest mounts by its tag; the socket is virtiofsd's. */
export interface VmShare {
  tag: string;
  socket: string;
}

/** How the agent in the guest is reached. */
export type VmChannel = 'virtio-serial' | 'vsock';

/** One virtual machine, whatever the hypervisor. */
export interface VmConfig {
  /** The sandbox's id, by which helper processes are marked. */
  id: string;
  /** The machine's own directory for sockets and logs: exists, mode 0700, at most 80 bytes long. */
  dir: string;
  /** Path of the network namespace that the hypervisor runs in and where the taps are; undefined: this process's. */
  netns: string | undefined;
  /** `cgroup.procs` files that the process is written to before it runs anything of the guest. */
  cgroups: readonly string[];
  vcpus: number;
  /** At least `vcpus`: what a later resize may reach. */
  maxVcpus: number;
  /** Bytes, a multiple of 1 MiB. */
  memoryBytes: bigint;
  maxMemoryBytes: bigint;
  boot: GuestImage;
  /** Appended to the kernel's command line. */
  kernelArgs: readonly string[];
  channel: VmChannel;
  nics: readonly VmNic[];
  disks: readonly VmDisk[];
  shares: readonly VmShare[];
}

/** What a hypervisor can do on this host; what it cannot is refused before a machine is started. */
export interface HypervisorCapabilities {
  /** virtiofs; without it root file systems and volumes must be block devices. */
  sharedFs: boolean;
  hotplugNic: boolean;
  hotplugDisk: boolean;
  resizeMemory: boolean;
  resizeVcpus: boolean;
  /** The guest's root file system on persistent memory, whose pages are the host's page cache. */
  pmem: boolean;
  vsock: boolean;
}

/** How a virtual machine ended. */
export interface VmEnd {
  /** Of the hypervisor's process; both null when it was not this process's child or is not known. */
  code: number | null;
  signal: NodeJS.Signals | null;
  /** One line for people: what the hypervisor said last, or how it ended. */
  reason: string;
}

/** A virtual machine that runs. */
export interface Vm {
  readonly process: ProcessIdentity;
  /** Settles as soon as the process is gone, whatever ended it; never rejects. */
  readonly ended: Promise<VmEnd>;
  /**
   * Connects to the agent's port in the guest: one byte stream. Only one connection at a time over
   * virtio-serial.
   *
   * @throws BerthError `unavailable` when nobody listens; the signal's reason
   */
  connectAgent(signal: AbortSignal): Promise<Duplex>;
  /**
   * Adds or removes processors and memory; the guest must then be told to use what was added.
   *
   * @returns what the machine has now: at least `memoryBytes`, in steps of the hypervisor's
   * @throws BerthError `unimplemented` when the hypervisor cannot, `invalid` beyond the maximum
   */
  resize(to: VmSize, signal: AbortSignal): Promise<Required<VmSize>>;
  /**
   * Adds a disk; the guest sees it a moment later.
   *
   * @returns by what the guest knows it: `serial:<id>`, or a path such as `/dev/vdb`
   * @throws BerthError `unimplemented` when the hypervisor cannot, `exhausted` when no place is free
   */
  addDisk(disk: VmDisk, signal: AbortSignal): Promise<string>;
  /**
   * Takes away a disk that `addDisk` added; the guest must have unmounted it. Repeatable.
   *
   * @throws BerthError `deadline` when the guest does not let go; the signal's reason
   */
  removeDisk(id: string, signal: AbortSignal): Promise<void>;
  /**
   * What the guest's kernel wrote to its console, the last 64 KiB at most: for a guest that does not come up.
   *
   * @throws BerthError `unavailable` when the machine has ended; the signal's reason
   */
  console(signal: AbortSignal): Promise<string>;
  /** Ends the machine without asking the guest, and waits for its end. Repeatable. */
  stop(signal: AbortSignal): Promise<void>;
  /** Lets go of what this process holds of it; the machine lives on. Repeatable. */
  close(): Promise<void>;
}

export interface VmSize {
  vcpus?: number;
  memoryBytes?: bigint;
}

/** A program that runs virtual machines. */
export interface Hypervisor {
  readonly name: string;
  readonly capabilities: HypervisorCapabilities;
  /**
   * Starts a machine. Resolves when the guest's processors run; the agent is not waited for. Whatever
   * fails, no process is left.
   *
   * @throws BerthError `invalid`, `unimplemented` for what it cannot do; `unavailable` with its last words
   *   when it does not come up; the signal's reason
   */
  start(config: VmConfig, signal: AbortSignal): Promise<Vm>;
}
