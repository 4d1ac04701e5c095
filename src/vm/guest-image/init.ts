import { VSOCK_ARGUMENT } from '../protocol/names.ts';

/**
 * The first program of the guest, from the initial RAM file system: loads what the root file system needs, and goes
 * over to the agent. A shell script for busybox, since Node.js on a RAM file system would fill the memory. Commands
 * without "busybox" before them are those that Debian's static busybox runs without becoming another program.
 */
export const INIT_SCRIPT = `#!/bin/busybox sh
fail() {
  echo "berth-init: $*" >/dev/console
  busybox poweroff -f
}
load() {
  while read -r module; do
    insmod "/modules/$module.ko" || fail "module $module"
  done <"/modules/$1"
}
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
read -r line </proc/cmdline
root=/dev/vda type=erofs flags= channel=serial
for word in $line; do
  case $word in
    root=*) root=\${word#*=} ;;
    rootfstype=*) type=\${word#*=} ;;
    rootflags=*) flags=,\${word#*=} ;;
    ${VSOCK_ARGUMENT}) channel=vsock ;;
  esac
done
load common
load $channel
case $root in
  /dev/pmem*) load pmem ;;
  *) load block ;;
esac
n=0
until [ -b "$root" ] || [ $n = 200 ]; do
  usleep 10000
  n=$((n + 1))
done
busybox mount -t "$type" -o "ro$flags" "$root" /root || fail "cannot mount $root ($type)"
busybox mount --move /dev /root/dev
busybox mount --move /proc /root/proc
export PATH=/usr/sbin:/usr/bin:/sbin:/bin UV_THREADPOOL_SIZE=8
exec busybox switch_root /root /usr/lib/berth/node --single-threaded /usr/lib/berth/agent.cjs
`;

/** Loaded by the agent when it has begun to answer, with all that they need. */
export const LATE_MODULES = [
  ...['virtio_net', 'virtio_blk', 'virtiofs', 'overlay', 'virtio_balloon', 'virtio_mem', 'virtio_rng'],
] as const;

/**
 * Loaded by {@link INIT_SCRIPT}: always, for the two channels to the host, for a root device on persistent memory, for
 * one on virtio-blk.
 */
export const EARLY_MODULES = {
  // Firecracker's devices are on no PCI bus.
  common: ['virtio_pci', 'virtio_mmio', 'erofs'],
  serial: ['virtio_console'],
  vsock: ['vmw_vsock_virtio_transport'],
  pmem: ['virtio_pmem', 'nd_pmem'],
  block: ['virtio_blk'],
} as const;
