import { closeSync, openSync } from 'node:fs';
import { declareBlocking } from './libc.ts';

/** finit_module(2), which glibc does not wrap, by architecture. */
const SYS_FINIT_MODULE = process.arch === 'arm64' ? 273 : 313;

const cFinitModule = declareBlocking<[number, number, string, number]>('syscall', [
  'long',
  'int',
  'const char *',
  'int',
]);

/**
 * Loads a kernel module from its file, whose dependencies are loaded; on a thread, since a driver talks with its device
 * meanwhile.
 *
 * @returns false when the kernel did not take it, as one that is loaded already
 * @throws Error of open(2)
 */
export async function loadModule(file: string): Promise<boolean> {
  const fd = openSync(file, 'r');
  try {
    return (await cFinitModule(SYS_FINIT_MODULE, fd, '', 0)) === 0;
  } finally {
    closeSync(fd);
  }
}
