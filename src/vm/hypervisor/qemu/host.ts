import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from '../../../sys/exec.ts';

const PROBE_MS = 5_000;
const FIRMWARE_BYTES = 1 << 16;
/** The processor's first instruction is 16 bytes below the end of the firmware. */
const RESET_VECTOR = FIRMWARE_BYTES - 16;
/** mov al, 0x15; out 0xf4, al; hlt: the exit device then ends QEMU with (0x15 << 1) | 1. */
const PROGRAM = [0xb0, 0x15, 0xe6, 0xf4, 0xf4];
const EXIT_CODE = (0x15 << 1) | 1;

/** Whether the device opens for reading and writing: a node may be there without its driver, which opening it loads. */
export async function hasDevice(device: string): Promise<boolean> {
  try {
    await (await open(device, 'r+')).close();
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether KVM runs a guest here: three instructions of one. Some machines have a /dev/kvm that opens, and
 * makes machines, and then hangs or aborts, so that nothing less tells.
 */
export async function kvmWorks(program: string, signal: AbortSignal): Promise<boolean> {
  if (!(await hasDevice('/dev/kvm'))) return false;
  const dir = await mkdtemp(path.join(tmpdir(), 'berth-kvm-'));
  try {
    const firmware = Buffer.alloc(FIRMWARE_BYTES);
    firmware.set(PROGRAM, RESET_VECTOR);
    const bios = path.join(dir, 'firmware');
    await writeFile(bios, firmware);
    const { code } = await run(
      [
        program,
        ...['-machine', 'pc', '-accel', 'kvm', '-cpu', 'host', '-m', '16M', '-bios', bios],
        ...['-nodefaults', '-no-user-config', '-display', 'none'],
        ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=1'],
      ],
      { signal, timeoutMs: PROBE_MS, maxOutput: 1 << 16 },
    );
    return code === EXIT_CODE;
  } catch {
    signal.throwIfAborted();
    return false;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
