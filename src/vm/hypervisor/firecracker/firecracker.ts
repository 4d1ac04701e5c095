import { open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError } from '../../../errors.ts';
import { startVmProcess, type VmProcess } from '../../process.ts';
import type { Hypervisor, HypervisorCapabilities, Vm, VmConfig } from '../../types.ts';
import { type Call, callApi, isNotListening } from './api.ts';
import { checkConfig, startCalls } from './calls.ts';
import { FirecrackerVm } from './vm.ts';

/** From the start of the process until its API answers, milliseconds: documented as 6 to 60. */
const START_MS = 10_000;
const POLL_MS = 5;
/** Bytes: a drive needs at least a sector. */
const EMPTY_BYTES = 4096;
const ELF_MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);

/**
 * Virtual machines by Firecracker, which needs KVM, has no shared file system and boots uncompressed kernels.
 */
export class Firecracker implements Hypervisor {
  readonly name = 'firecracker';
  readonly capabilities: HypervisorCapabilities = {
    sharedFs: false,
    hotplugNic: false,
    hotplugDisk: true,
    resizeMemory: false,
    resizeVcpus: false,
    pmem: false,
    vsock: true,
  };
  readonly #program: string;

  constructor(program: string) {
    this.#program = program;
  }

  async start(config: VmConfig, signal: AbortSignal): Promise<Vm> {
    checkConfig(config);
    await checkKernel(config.boot.kernel);
    const files = {
      api: path.join(config.dir, 'api.sock'),
      vsock: path.join(config.dir, 'vsock.sock'),
      empty: path.join(config.dir, 'empty.img'),
    };
    // Firecracker makes its sockets and refuses those that are there.
    await Promise.all([rm(files.api, { force: true }), rm(files.vsock, { force: true })]);
    await writeFile(files.empty, Buffer.alloc(EMPTY_BYTES), { mode: 0o600 });
    const child = await startVmProcess(
      [this.#program, '--api-sock', files.api, '--id', config.id.slice(0, 64), '--level', 'Error'],
      {
        logFile: path.join(config.dir, 'firecracker.log'),
        netns: config.netns,
        cgroups: config.cgroups,
      },
    );
    try {
      for (const call of startCalls(config, files)) await callOnceUp(child, files.api, call, signal);
      return new FirecrackerVm(config, child, files);
    } catch (e: unknown) {
      await child.kill(AbortSignal.timeout(START_MS));
      throw e;
    }
  }
}

/** A bzImage is what Firecracker cannot load, and says so in a way that few understand. */
async function checkKernel(kernel: string): Promise<void> {
  await using file = await open(kernel);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(ELF_MAGIC.length), 0, ELF_MAGIC.length, 0);
  if (bytesRead === ELF_MAGIC.length && buffer.equals(ELF_MAGIC)) return;
  throw new BerthError('invalid', `${kernel}: firecracker boots an uncompressed kernel (vmlinux) alone`);
}

/** Calls; as long as the process lives and nobody listens yet, again. */
async function callOnceUp(child: VmProcess, socket: string, call: Call, signal: AbortSignal): Promise<void> {
  const giveUp = performance.now() + START_MS;
  let ended = false;
  void child.exited.then(() => {
    ended = true;
  });
  for (;;) {
    try {
      return await callApi(socket, call, signal);
    } catch (e: unknown) {
      if (ended) throw new BerthError('unavailable', `Firecracker did not start: ${await child.lastWords()}`);
      if (!isNotListening(e) || performance.now() > giveUp) throw e;
    }
    await delay(POLL_MS, undefined, { signal });
  }
}
