import { check, declare, declareBlocking } from './libc.ts';

const RB_POWER_OFF = 0x4321fedc;
const RB_AUTOBOOT = 0x01234567;
const CLOCK_REALTIME = 0;

const cReboot = declare<[number]>('reboot', ['uint']);
const cSync = declareBlocking<[]>('sync', []);
const cSyncfs = declareBlocking<[number]>('syncfs', ['int']);
const cClockSettime = declare<[number, Buffer]>('clock_settime', ['int', 'const void *']);

/** Switches the machine off at once (reboot(2)): nothing is written or ended before. @throws SyscallError EPERM */
export function powerOff(): void {
  check('reboot', cReboot(RB_POWER_OFF));
}

/** Resets the machine at once, as {@link powerOff} switches it off. @throws SyscallError EPERM */
export function reset(): void {
  check('reboot', cReboot(RB_AUTOBOOT));
}

/** Writes what all file systems have in memory (sync(2)), on a thread. */
export async function syncAll(): Promise<void> {
  await cSync();
}

/** Writes what the file system of this descriptor has in memory (syncfs(2)), on a thread; errors are not told. */
export async function syncFileSystem(fd: number): Promise<void> {
  await cSyncfs(fd);
}

/** Sets the wall clock, milliseconds since the epoch. @throws SyscallError EPERM */
export function setClock(ms: number): void {
  const timespec = Buffer.alloc(16);
  timespec.writeBigInt64LE(BigInt(Math.floor(ms / 1000)), 0);
  timespec.writeBigInt64LE(BigInt(Math.floor(ms % 1000)) * 1_000_000n, 8);
  check('clock_settime', cClockSettime(CLOCK_REALTIME, timespec));
}
