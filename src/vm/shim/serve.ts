import { constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { detectCgroups } from '../../../cgroups/index.ts';
import { loadShimProtos } from '../../shim/protos.ts';
import { TtrpcServer } from '../../shim/ttrpc/server.ts';
import { serveDial } from '../dial.ts';
import type { ShimArguments } from './arguments.ts';
import { bootMachine } from './boot.ts';
import { isOutOfMemory, leaveCgroup } from './cgroup.ts';
import { VmDirectory } from './directory.ts';
import type { Log } from './machine.ts';
import { Pod } from './pod.ts';
import { Publisher } from './publisher.ts';
import { readSettings } from './settings.ts';
import { removeMachine } from './take-down.ts';
import { taskMethods } from './task-service.ts';

/** Events are told before the shim ends, if somebody takes them; milliseconds. */
const EVENTS_MS = 2_000;

/**
 * The daemon of one sandbox: serves its task service until Shutdown. When it serves, it says so with a line on stdout.
 *
 * @throws Error when it cannot
 */
export async function serveTasks(args: ShimArguments): Promise<void> {
  const { namespace, id, address, publishBinary } = args;
  const protos = loadShimProtos();
  const directory = VmDirectory.of(namespace, id);
  const settings = await readSettings(directory.settings);
  const log = messages(args.debug);
  const sink = { namespace, address, publishBinary, ttrpc: process.env.TTRPC_ADDRESS ?? '' };
  const publisher = new Publisher(sink, protos, (message) => log('warn', message));
  const pod = new Pod({
    boot: bootMachine({ id, directory, settings, log }),
    publish: (name, fields) => publisher.publish(name, fields),
    log,
    isOutOfMemory: () => isOutOfMemory(directory),
  });
  const end = Promise.withResolvers<void>();
  const server = await TtrpcServer.listen(
    directory.socket,
    protos,
    taskMethods({ pod, protos, mode: detectCgroups().mode, shutdown: end.resolve }),
  );
  const dialing = await serveDial(directory.dial, (port) => pod.dial(port));
  // Whoever wants it to end says so by Shutdown, or by SIGKILL; a terminal's or a node's end are not meant for it.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
  writeSync(1, 'ready\n');
  await end.promise;
  await pod.close();
  await publisher.settled(EVENTS_MS);
  publisher.close();
  await server.close();
  dialing.close();
  await leaveCgroup(directory);
  await removeMachine(directory);
}

/** Into the FIFO that the daemon made for it; what it does not take is lost. */
function messages(debug: boolean): Log {
  let fd: number;
  try {
    // With a reading end of its own it does not break when the daemon goes.
    fd = openSync(join(process.cwd(), 'log'), constants.O_RDWR | constants.O_NONBLOCK);
  } catch {
    return () => {};
  }
  return (level, message) => {
    if (level === 'debug' && !debug) return;
    try {
      writeSync(fd, `level=${level === 'warn' ? 'warning' : level} msg=${JSON.stringify(message)}\n`);
    } catch {
      // It is full: nobody reads.
    }
  };
}
