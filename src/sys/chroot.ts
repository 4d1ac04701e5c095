import { check, declare } from './libc.ts';
import { MS_PRIVATE, MS_REC, mount } from './mount.ts';

const CLONE_NEWNS = 0x00020000;

const cUnshare = declare<[number]>('unshare', ['int']);
const cChroot = declare<[string]>('chroot', ['const char *']);
const cChdir = declare<[string]>('chdir', ['const char *']);

/**
 * Gives the calling process a mount namespace of its own, from which nothing propagates back. Only for a
 * helper process, before it starts asynchronous work: it is the calling thread that moves, and threads
 * that run already stay behind. Those started later follow.
 *
 * @throws SyscallError
 */
export function unshareMounts(): void {
  check('unshare', cUnshare(CLONE_NEWNS));
  mount(null, '/', null, MS_REC | MS_PRIVATE);
}

/**
 * Makes `root` the calling thread's root and working directory. For a helper process that has loaded all
 * it needs. After `unshareMounts` this reaches only threads started later: Node's synchronous fs functions
 * run on the calling thread, its promises on libuv's threads.
 *
 * @throws SyscallError
 */
export function enterRoot(root: string): void {
  check('chroot', cChroot(root), root);
  check('chdir', cChdir('/'), '/');
}
