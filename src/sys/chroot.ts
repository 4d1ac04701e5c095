import { check, declare } from './libc.ts';

const cChroot = declare<[string]>('chroot', ['const char *']);
const cChdir = declare<[string]>('chdir', ['const char *']);

/**
 * Makes `root` this process's root and working directory, of all its threads. Only for a helper process
 * that has loaded all the modules it needs.
 *
 * @throws SyscallError
 */
export function chroot(root: string): void {
  check('chroot', cChroot(root), root);
  // A working directory outside would be a way out.
  check('chdir', cChdir('/'), '/');
}
