import { closeSync, openSync } from 'node:fs';
import { rm, stat } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import path from 'node:path';
import { BerthError, kindOf } from '../../../errors.ts';
import { takeGuestAddress } from '../../../sys/vsock.ts';
import { orAborted } from '../../../util/abort.ts';
import { startVmProcess, type VmProcess } from '../../process.ts';
import type { Hypervisor, HypervisorCapabilities, Vm, VmConfig } from '../../types.ts';
import { type QemuSettings, qemuArgv } from './argv.ts';
import { Qmp } from './qmp.ts';
import { QemuVm } from './vm.ts';

/** From the start of the process until it speaks, milliseconds: 30 when idle; its end is noticed without. */
const START_MS = 60_000;
/** In a child, the first descriptor after the standard streams. */
const FIRST_FD = 3;

/** Virtual machines by QEMU, each a process of its own. */
export class Qemu implements Hypervisor {
  readonly name = 'qemu';
  readonly capabilities: HypervisorCapabilities;
  readonly #settings: QemuSettings;

  constructor(settings: QemuSettings) {
    this.#settings = settings;
    const grows = settings.machine !== 'microvm';
    this.capabilities = {
      sharedFs: true,
      hotplugNic: false,
      hotplugDisk: settings.machine === 'pc' || (settings.machine === 'q35' && settings.hotplugPorts > 0),
      resizeMemory: grows,
      resizeVcpus: grows,
      pmem: settings.rootDevice === 'pmem',
      vsock: true,
    };
  }

  async start(config: VmConfig, signal: AbortSignal): Promise<Vm> {
    const qmpSocket = path.join(config.dir, 'qmp.sock');
    const agentSocket = path.join(config.dir, 'agent.sock');
    const { size } = await stat(config.boot.rootfs, { bigint: true });
    const taps = openMacvtaps(config);
    const tapFds = new Map([...taps.keys()].map((name, index) => [name, FIRST_FD + index]));
    const fds = [...taps.values()];
    let child: VmProcess | undefined;
    // QEMU is the one that connects, so that there is nothing to wait for but its coming or its end.
    const server = createServer();
    try {
      const vsock = config.channel === 'vsock' ? takeGuestAddress() : undefined;
      if (vsock !== undefined) fds.push(vsock.fd);
      const argv = qemuArgv({
        settings: this.#settings,
        config,
        rootfsBytes: size,
        qmpSocket,
        agentSocket,
        tapFds,
        ...(vsock === undefined ? {} : { vsock: { cid: vsock.cid, fd: FIRST_FD + fds.length - 1 } }),
      });
      await rm(qmpSocket, { force: true });
      const connection = listen(server, qmpSocket);
      child = await startVmProcess(argv, {
        logFile: path.join(config.dir, 'qemu.log'),
        netns: config.netns,
        cgroups: config.cgroups,
        fds,
      });
      const qmp = await negotiate(child, connection, signal);
      const parts = { settings: this.#settings, config, child, qmp, agentSocket };
      return await QemuVm.of(vsock === undefined ? parts : { ...parts, cid: vsock.cid });
    } catch (e: unknown) {
      await child?.kill(AbortSignal.timeout(START_MS));
      throw e;
    } finally {
      server.close();
      for (const fd of fds) closeSync(fd);
    }
  }
}

/** Their descriptors here, by the name of the card. */
function openMacvtaps({ nics }: VmConfig): Map<string, number> {
  const opened = new Map<string, number>();
  try {
    for (const { name, tap } of nics) if (tap.kind === 'macvtap') opened.set(name, openSync(tap.node, 'r+'));
    return opened;
  } catch (e: unknown) {
    for (const fd of opened.values()) closeSync(fd);
    throw e;
  }
}

/** The one connection that comes. */
function listen(server: ReturnType<typeof createServer>, socket: string): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  server.once('connection', resolve);
  server.once('error', reject);
  server.listen(socket);
  promise.catch(() => {});
  return promise;
}

async function negotiate(child: VmProcess, connection: Promise<Socket>, signal: AbortSignal): Promise<Qmp> {
  const timeout = AbortSignal.timeout(START_MS);
  const either = AbortSignal.any([signal, timeout]);
  const gone = child.exited.then(async () => {
    throw new BerthError('unavailable', `QEMU did not start: ${await child.lastWords()}`);
  });
  gone.catch(() => {});
  try {
    const qmp = new Qmp(await orAborted(Promise.race([connection, gone]), either));
    try {
      await qmp.negotiate({ signal: either, timeoutMs: START_MS });
      return qmp;
    } catch (e: unknown) {
      qmp.close();
      // A QEMU that gives up has first closed its connection; its end tells why.
      if (kindOf(e) === 'unavailable') await orAborted(gone, either);
      throw e;
    }
  } catch (e: unknown) {
    if (e !== timeout.reason) throw e;
    throw new BerthError('deadline', `QEMU did not answer within ${START_MS} ms`);
  }
}
