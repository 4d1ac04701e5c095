import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../errors.ts';
import { powerOff } from '../../sys/power.ts';
import { AGENT_PORT_NAME } from '../protocol/messages.ts';
import type { Mux } from '../protocol/mux.ts';
import { Agent } from './agent.ts';
import { PortStream } from './port.ts';
import { Reaper } from './reaper.ts';
import { GuestRuntime } from './runtime.ts';
import { serve } from './serve.ts';
import { prepareSystem } from './system.ts';

/** Loaded once the agent runs; what is needed to get here the init script has loaded. */
const DRIVERS = ['virtio_net', 'virtiofs', 'overlay', 'virtio_balloon', 'virtio_mem', 'virtio_rng'];
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
  const drivers = loadDrivers(reaper);
  reaper.watch();
  const agent = new Agent({ runtime, reaper, drivers, tell: (event) => mux?.tell(event) });
  for (;;) {
    const port = await PortStream.open(await findPort());
    const serving = serve(port, agent.handlers, (method) => {
      if (method === 'shutdown') port.end(() => powerOff());
    });
    mux = serving.mux;
    mux.tell({ event: 'ready' });
    await serving.ended;
    mux = undefined;
  }
}

/** One that this kernel does not have, or has built in, is no error. */
async function loadDrivers(reaper: Reaper): Promise<void> {
  await reaper.spawn('/bin/busybox', ['modprobe', '-a', ...DRIVERS], ['ignore', 'ignore', 'ignore']).exited;
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

await main();
