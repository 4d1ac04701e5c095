import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../errors.ts';
import { loadModule } from '../../sys/kernel-module.ts';
import { acceptVsock, listenVsock, VSOCK_HOST } from '../../sys/vsock.ts';
import type { Mux } from '../protocol/mux.ts';
import { AGENT_PORT_NAME, AGENT_VSOCK_PORT, VSOCK_ARGUMENT } from '../protocol/names.ts';
import { Agent } from './agent.ts';
import { PortStream } from './port.ts';
import { Reaper } from './reaper.ts';
import { GuestRuntime } from './runtime.ts';
import { serve } from './serve.ts';
import { endMachine, prepareSystem } from './system.ts';

/** Kernel modules, one file a line; what is needed to get here the init script has loaded. */
const MODULES = '/usr/lib/berth/modules';
const PORTS = '/sys/class/virtio-ports';
/** How often the port, which the driver makes when it has talked with the host, is looked for, milliseconds. */
const LOOK_MS = 10;
const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' };

/** The first program of a virtual machine's root file system, as process 1. */
async function main(): Promise<void> {
  // The machine ends with its first process, and all of the pod's containers with it.
  process.on('uncaughtException', (e) => console.error(`agent: ${e.stack}`));
  process.on('unhandledRejection', (e) => console.error(`agent: ${messageOf(e)}`));
  const reaper = new Reaper(ENVIRONMENT);
  const runtime = new GuestRuntime(reaper);
  let mux: Mux | undefined;
  await prepareSystem();
  await runtime.prepare();
  const drivers = loadDrivers();
  reaper.watch();
  const agent = new Agent({ runtime, reaper, drivers, tell: (event) => mux?.tell(event) });
  const words = (await readFile('/proc/cmdline', 'utf8')).trim().split(' ');
  const listener = words.includes(VSOCK_ARGUMENT) ? listenVsock(AGENT_VSOCK_PORT) : undefined;
  let isOnly = listener === undefined;
  do {
    const port = await connection(listener);
    const serving = serve(port, agent.handlers, (method) => {
      isOnly = true;
      if (method === 'shutdown') port.end(() => void endMachine());
    });
    mux = serving.mux;
    mux.tell({ event: 'ready' });
    await serving.ended;
    // A host that has called nothing gave this connection up before it was accepted, and makes another.
  } while (!isOnly);
  // The host has lost this machine, and nobody can find it again: what its containers have written is all that counts.
  await agent.stop();
  await endMachine();
}

/** By the list that the image's build has made. What is loaded already (by a device) is no error. */
async function loadDrivers(): Promise<void> {
  for (const file of (await readFile(MODULES, 'utf8')).split('\n').filter((line) => line !== '')) {
    await loadModule(file);
  }
}

/** The host's; containers can connect to a vsock, too, if no filter of system calls forbids it. */
async function connection(vsock: number | undefined): Promise<PortStream> {
  if (vsock === undefined) return PortStream.open(await findPort());
  return new PortStream(await acceptVsock(vsock, VSOCK_HOST));
}

/** The device of the port with the agent's name. */
async function findPort(): Promise<string> {
  for (;;) {
    for (const device of await readdir(PORTS)) {
      const name = await readFile(`${PORTS}/${device}/name`, 'utf8').catch(() => '');
      if (name.trim() === AGENT_PORT_NAME) return `/dev/${device}`;
    }
    await delay(LOOK_MS);
  }
}

void main();
