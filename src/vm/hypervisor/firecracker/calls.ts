import { BerthError } from '../../../errors.ts';
import { VSOCK_ARGUMENT } from '../../protocol/names.ts';
import type { VmConfig } from '../../types.ts';
import type { Call } from './api.ts';

const MIB = 1n << 20n;
/** Addresses of the guest's vsock need only differ between machines where the kernel routes them; here nothing does. */
const GUEST_CID = 3;
/** Of vCPUs, by Firecracker's API. */
const MAX_VCPUS = 32;

/** A place for a disk that comes later: Firecracker can exchange the file behind a drive, but not add a drive. */
export interface Place {
  drive: string;
  /** In the guest, by the order of the drives. */
  device: string;
  readOnly: boolean;
}

/** Half of them can be written to; which ones is decided before the start. */
const PLACES = 8;

/** The places of a machine, after the root device and the disks that are there from the start. */
export function places({ disks }: Pick<VmConfig, 'disks'>): Place[] {
  return Array.from({ length: PLACES }, (_, index) => ({
    drive: `place${index}`,
    device: `/dev/vd${String.fromCharCode('b'.charCodeAt(0) + disks.length + index)}`,
    readOnly: index < PLACES / 2,
  }));
}

/** Refuses what Firecracker has no means for. @throws BerthError `unimplemented` */
export function checkConfig({ shares, nics, vcpus, channel, disks }: VmConfig): void {
  const cannot = (what: string): BerthError => new BerthError('unimplemented', `firecracker: ${what}`);
  if (shares.length > 0) throw cannot('no shared file system; root file systems must be block devices');
  if (channel !== 'vsock') throw cannot(`the channel "${channel}"; it has vsock alone`);
  if (vcpus > MAX_VCPUS) throw cannot(`${vcpus} vCPUs; ${MAX_VCPUS} at most`);
  if (disks.length + PLACES > 24) throw cannot(`${disks.length} disks`);
  const other = nics.find(({ tap }) => tap.kind !== 'tap');
  if (other !== undefined) throw cannot(`${other.name} by ${other.tap.kind}; it opens taps alone`);
}

/**
 * The calls that make and start a machine, in the order in which Firecracker's guides show them: all devices
 * before the start, the root device before other drives, since their order is that of the guest's names. Pure.
 *
 * @param files of the machine: the socket for vsock, and an empty file for places without a disk
 */
export function startCalls(config: VmConfig, files: { vsock: string; empty: string }): Call[] {
  const { boot, vcpus, memoryBytes, disks, nics, kernelArgs } = config;
  return [
    put('/machine-config', { vcpu_count: vcpus, mem_size_mib: Number(memoryBytes / MIB), smt: false }),
    put('/boot-source', {
      kernel_image_path: boot.kernel,
      ...(boot.initrd === undefined ? {} : { initrd_path: boot.initrd }),
      boot_args: bootArgs(boot.kernelArgs, boot.rootfsType, [VSOCK_ARGUMENT, ...kernelArgs]),
    }),
    drive('root', boot.rootfs, true, true),
    ...disks.map(({ path, readOnly }, index) => drive(`disk${index}`, path, readOnly)),
    ...places(config).map((place) => drive(place.drive, files.empty, place.readOnly)),
    ...nics.map(({ mac, tap }, index) =>
      put(`/network-interfaces/net${index}`, {
        iface_id: `net${index}`,
        host_dev_name: tap.device,
        guest_mac: mac,
      }),
    ),
    put('/vsock', { guest_cid: GUEST_CID, uds_path: files.vsock }),
    put('/entropy', {}),
    put('/balloon', { amount_mib: 0, deflate_on_oom: true }),
    put('/actions', { action_type: 'InstanceStart' }),
  ];
}

/** Shows another file in a place; only while the machine runs. */
export function exchange(place: Place, file: string): Call {
  return {
    method: 'PATCH',
    path: `/drives/${place.drive}`,
    body: { drive_id: place.drive, path_on_host: file },
  };
}

/**
 * Firecracker ends when the guest resets through the keyboard controller. The serial console would go to its
 * stdout, a file that a guest could fill the host's disk with: there is none.
 */
function bootArgs(image: readonly string[], rootfsType: string, more: readonly string[]): string {
  const own = ['reboot=k', 'panic=-1', '8250.nr_uarts=0', 'root=/dev/vda', 'ro', `rootfstype=${rootfsType}`];
  return [...image, ...own, ...more].join(' ');
}

function drive(id: string, file: string, readOnly: boolean, isRoot = false): Call {
  return put(`/drives/${id}`, {
    drive_id: id,
    path_on_host: file,
    is_root_device: isRoot,
    is_read_only: readOnly,
  });
}

function put(path: string, body: Call['body']): Call {
  return { method: 'PUT', path, body };
}
