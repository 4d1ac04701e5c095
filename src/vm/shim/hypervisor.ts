import { BerthError } from '../../errors.ts';
import { Firecracker } from '../hypervisor/firecracker/firecracker.ts';
import type { QemuSettings } from '../hypervisor/qemu/argv.ts';
import { hasDevice, kvmWorks } from '../hypervisor/qemu/host.ts';
import { Qemu } from '../hypervisor/qemu/qemu.ts';
import { hasVhostVsock } from '../hypervisor/vsock.ts';
import type { Probes } from '../probes.ts';
import type { Hypervisor, VmChannel } from '../types.ts';
import type { VmSettings } from './settings.ts';

/** MiB of translated code that QEMU keeps under emulation: its own default is a quarter of the machine's memory. */
const TRANSLATION_MIB = 48;
/** For disks of containers: each takes one, those of one image another. A port costs a boot 25 ms under emulation. */
const HOTPLUG_PORTS = 16;
const MACHINES = ['q35', 'pc', 'microvm'] as const;

/**
 * How the agent is reached: over vsock where the host has it, unless the configuration says otherwise.
 *
 * @throws BerthError `precondition` naming the key when vsock is asked for and is not there
 */
export function chooseChannel(wanted: VmSettings['channel'], hasVsock = hasVhostVsock): VmChannel {
  if (wanted === 'virtio-serial') return wanted;
  if (hasVsock()) return 'vsock';
  if (wanted === 'auto') return 'virtio-serial';
  throw new BerthError(
    'precondition',
    'vm.channel: "vsock" needs /dev/vhost-vsock (the kernel module vhost_vsock); use "auto"',
  );
}

/**
 * The configured hypervisor, as this host lets it be.
 *
 * @throws BerthError `invalid` naming the key; the signal's reason
 */
export async function makeHypervisor(
  settings: VmSettings,
  probes: Probes,
  signal: AbortSignal,
): Promise<Hypervisor> {
  if (settings.hypervisor === 'firecracker') {
    if (settings.rootfs !== 'virtiofs') return new Firecracker(settings.firecracker);
    throw new BerthError(
      'invalid',
      'vm.rootfs: "virtiofs" is not possible with the hypervisor "firecracker", which shares no directories; use "erofs" or "block"',
    );
  }
  const tryKvm = () => kvmWorks(settings.qemu, signal);
  const isKvm = await probes.ask('kvm', [settings.qemu, '/dev/kvm'], tryKvm, [true, false]);
  return new Qemu(qemuSettings(settings, { isKvm, vhostNet: await hasDevice('/dev/vhost-net') }));
}

/**
 * @param host what it can do
 * @throws BerthError `invalid` naming the key
 */
export function qemuSettings(
  settings: Pick<VmSettings, 'qemu' | 'machine' | 'rootfs'>,
  { isKvm, vhostNet }: { isKvm: boolean; vhostNet: boolean },
): QemuSettings {
  const hasDisks = settings.rootfs !== 'virtiofs';
  // Of the types the one that takes disks, memory and processors while it runs, and has persistent memory.
  const machine = MACHINES.find((known) => known === (settings.machine || 'q35'));
  if (machine === undefined) {
    throw new BerthError('invalid', `vm.machine: "${settings.machine}" is none of ${MACHINES.join(', ')}`);
  }
  if (hasDisks && machine === 'microvm') {
    throw new BerthError(
      'invalid',
      `vm.machine: "microvm" takes no disks for vm.rootfs = "${settings.rootfs}"`,
    );
  }
  return {
    program: settings.qemu,
    machine,
    accelerator: isKvm ? 'kvm' : 'tcg',
    rootDevice: machine === 'microvm' ? 'virtio-blk' : 'pmem',
    translationCache: TRANSLATION_MIB,
    vhostNet,
    hotplugPorts: hasDisks ? HOTPLUG_PORTS : 0,
  };
}
