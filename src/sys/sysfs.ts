import { closeSync } from 'node:fs';
import { check, declare } from './libc.ts';
import { withNamespace } from './namespaces.ts';

// Numbers of include/uapi/asm-generic/unistd.h, the same on every architecture; flags of linux/mount.h.
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const FSOPEN_CLOEXEC = 1;
const FSCONFIG_CMD_CREATE = 6;
const FSMOUNT_CLOEXEC = 1;

const cFsopen = declare<[number, string, number]>('syscall', ['long', 'const char *', 'uint'], 'long');
const cFsconfig = declare<[number, number, number, null, null, number]>(
  'syscall',
  ['long', 'int', 'uint', 'void *', 'void *', 'int'],
  'long',
);
const cFsmount = declare<[number, number, number, number]>(
  'syscall',
  ['long', 'int', 'uint', 'uint'],
  'long',
);

/**
 * Runs `use` with the path of a sysfs in which the network devices are those of `netns` (sysfs shows the
 * namespace of the thread that mounted it). It is mounted nowhere and gone afterwards. Takes a millisecond.
 *
 * @throws SyscallError ENOSYS before Linux 5.2
 */
export function withSysfsOf<T>(netns: string, use: (root: string) => T): T {
  const mountFd = withNamespace(netns, 'net', () => {
    const context = check('fsopen', cFsopen(SYS_FSOPEN, 'sysfs', FSOPEN_CLOEXEC));
    try {
      check('fsconfig', cFsconfig(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, null, null, 0));
      return check('fsmount', cFsmount(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0));
    } finally {
      closeSync(context);
    }
  });
  try {
    return use(`/proc/self/fd/${mountFd}`);
  } finally {
    closeSync(mountFd);
  }
}
