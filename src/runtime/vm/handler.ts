import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { signalNumber } from '../../signals.ts';
import { connectGuest } from '../../vm/dial.ts';
import { VmDirectory } from '../../vm/shim/directory.ts';
import { ShimHandler, type ShimHandlerOptions } from '../shim/handler.ts';

const KILL = signalNumber('SIGKILL') ?? 9;
/** A guest that does not shut down in order by then is killed, milliseconds. */
const SHUT_DOWN_MS = 5_000;

/**
 * The handler of virtual machines: berth's own shim. Containers are in no cgroup of this host, and the pod's loopback is
 * the guest's.
 */
export class VmHandler extends ShimHandler {
  readonly #namespace: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(options: ShimHandlerOptions) {
    super(options);
    this.#namespace = options.program.namespace;
    this.#env = { ...options.program.env };
  }

  /** What a guest has written but not stored would be lost with its process. */
  async shutDown(sandboxId: string): Promise<void> {
    const patience = new AbortController();
    const asked = this.tasksOf(sandboxId).then(async (tasks) => {
      await tasks.kill(sandboxId, KILL);
      await tasks.wait(sandboxId);
    });
    await Promise.race([
      asked.catch(() => {}),
      delay(SHUT_DOWN_MS, undefined, { signal: patience.signal, ref: false }).catch(() => {}),
    ]);
    patience.abort();
  }

  dial(sandboxId: string, port: number, signal: AbortSignal): Promise<Socket> {
    return connectGuest(VmDirectory.of(this.#namespace, sandboxId, this.#env).dial, port, signal);
  }
}
