import { declare } from './libc.ts';

/** getpid(2) as the x32 ABI numbers it (arch/x86/include/uapi/asm/unistd.h). */
const X32_GETPID = 0x4000_0000 + 39;

const cSyscall = declare<[number]>('syscall', ['long'], 'long');

/** Whether this kernel has the system calls of the x32 ABI, which hardly any is built with. For x86_64 only. */
export function hasX32(): boolean {
  return cSyscall(X32_GETPID) > 0;
}
