/** The name by which the kernel lists berth's default profile; files of the node may load another under it. */
export const DEFAULT_PROFILE = 'berth-default';

/**
 * The profile of containers that ask for none of their own, in the language of apparmor.d(5). It leaves a
 * container what it may do to itself and takes from it what would act on the node if the other walls fell:
 * mounting, and writing where the kernel takes orders.
 *
 * - Paths are given as what is *not* allowed, since a rule that denies comes before all that allow.
 * - Of `/proc/sys` only `kernel/shm*` can be written, as with containerd; what is read-only there stays so.
 * - Signals and tracing take both sides' leave. The receiving side is open: a container cannot send to, nor
 *   trace, what has another profile, while OCI runtimes and debuggers that have a profile themselves (runc's of
 *   AppArmor 4, a snap's) must be able to end and look at a container.
 *
 * @param abi the file of an ABI below `/etc/apparmor.d`, which keeps rules of a newer AppArmor from being asked for
 */
export function defaultProfile(abi: string | undefined): string {
  const peer = `peer=${DEFAULT_PROFILE}`;
  return `${abi === undefined ? '' : `abi <${abi}>,\n`}
profile ${DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  unix,
  capability,
  umount,

  signal (receive),
  signal (send) ${peer},
  ptrace (readby, tracedby),
  ptrace (read, trace) ${peer},

  deny /proc/* w,
  deny /proc/[^0-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sy[^s]*/** w,
  deny /proc/sys?*/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/k[^e]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/fs/cg[^r]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}
`;
}
