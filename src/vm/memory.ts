import { readFile, realpath } from 'node:fs/promises';
import { isErrno } from '../errors.ts';

/**
 * What the processes of one virtual machine take of the host's memory: proportional set sizes in bytes, in which
 * a page that n processes have counts 1/n for each (proc_pid_smaps(5)).
 */
export interface VmMemory {
  /** What the guest uses as its memory, in whichever process it is mapped. */
  guest: bigint;
  /** Kernel and root file system of the guest, as far as they are mapped: shared by all machines of that image. */
  image: bigint;
  /** The hypervisor's own: its program, device models, and translated code under emulation. */
  hypervisor: bigint;
  fileServer: bigint;
  /** The shim, and whatever else is given. */
  shim: bigint;
  total: bigint;
}

type Part = Exclude<keyof VmMemory, 'total'>;

/** A process and the PSS of each of its mappings by file name; '' for anonymous ones. */
export interface ProcessMappings {
  command: string;
  pss: ReadonlyMap<string, bigint>;
}

/** Guest memory of QEMU and Firecracker. */
const GUEST_MEMORY = /^\/memfd:/;

/**
 * Reads what the processes of a virtual machine take, whose roles are known by their names. One that ends
 * meanwhile counts nothing. Takes some milliseconds a process: the kernel walks its page tables.
 *
 * @param pids hypervisor, virtiofsd with its child, shim: all that is marked with the sandbox, or in its cgroup
 * @param guestDir where the images of guests are, of which one was booted
 */
export async function readVmMemory(pids: readonly number[], guestDir: string): Promise<VmMemory> {
  const images = await realpath(guestDir).catch(() => guestDir);
  const read = await Promise.all(pids.map(readMappings));
  return sumVmMemory(
    read.flatMap((mappings) => mappings ?? []),
    images,
  );
}

/** The same from what was read. */
export function sumVmMemory(processes: readonly ProcessMappings[], images: string): VmMemory {
  const sum: VmMemory = { guest: 0n, image: 0n, hypervisor: 0n, fileServer: 0n, shim: 0n, total: 0n };
  for (const { command, pss } of processes) {
    const own = roleOf(command);
    for (const [file, bytes] of pss) {
      const part = own === 'shim' ? own : partOf(file, images, own);
      sum[part] += bytes;
      sum.total += bytes;
    }
  }
  return sum;
}

/** Sums `Pss:` by file in the text of a smaps file. */
export function parseSmaps(text: string): Map<string, bigint> {
  const pss = new Map<string, bigint>();
  let file = '';
  for (const line of text.split('\n')) {
    const header = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$/.exec(line);
    if (header !== null) file = header[1] ?? '';
    const size = /^Pss: +(\d+) kB$/.exec(line)?.[1];
    if (size !== undefined) pss.set(file, (pss.get(file) ?? 0n) + BigInt(size) * 1024n);
  }
  return pss;
}

function partOf(file: string, images: string, own: Part): Part {
  if (file.startsWith(`${images}/`)) return 'image';
  return GUEST_MEMORY.test(file) ? 'guest' : own;
}

function roleOf(command: string): Part {
  if (command.startsWith('qemu-') || command === 'firecracker') return 'hypervisor';
  return command === 'virtiofsd' ? 'fileServer' : 'shim';
}

async function readMappings(pid: number): Promise<ProcessMappings | undefined> {
  try {
    const [command, smaps] = await Promise.all([
      readFile(`/proc/${pid}/comm`, 'utf8'),
      readFile(`/proc/${pid}/smaps`, 'latin1'),
    ]);
    return { command: command.trimEnd(), pss: parseSmaps(smaps) };
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ESRCH')) return undefined;
    throw e;
  }
}
