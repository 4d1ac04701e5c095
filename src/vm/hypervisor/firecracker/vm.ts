import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, kindOf } from '../../../errors.ts';
import type { ProcessIdentity } from '../../../sys/process-identity.ts';
import { orAborted } from '../../../util/abort.ts';
import type { VmProcess } from '../../process.ts';
import { AGENT_VSOCK_PORT } from '../../protocol/names.ts';
import type { Vm, VmConfig, VmDisk, VmEnd, VmSize } from '../../types.ts';
import { callApi } from './api.ts';
import { exchange, type Place, places } from './calls.ts';
import { connectHybridVsock } from './vsock.ts';

/** Between two tries to reach an agent that does not listen yet, milliseconds. */
const CONNECT_POLL_MS = 20;

/** One machine under Firecracker. */
export class FirecrackerVm implements Vm {
  readonly process: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly #config: VmConfig;
  readonly #child: VmProcess;
  readonly #files: { api: string; vsock: string; empty: string };
  readonly #places: readonly Place[];
  /** By the disk's id. */
  readonly #taken = new Map<string, Place>();
  #hasEnded = false;

  constructor(config: VmConfig, child: VmProcess, files: { api: string; vsock: string; empty: string }) {
    this.#config = config;
    this.#child = child;
    this.#files = files;
    this.#places = places(config);
    this.process = child.identity;
    this.ended = child.exited.then(async ({ code, signal }) => {
      this.#hasEnded = true;
      // A guest that shuts down or panics resets, and Firecracker ends in good order.
      const reason = code === 0 ? 'the guest has shut down' : `Firecracker: ${await child.lastWords()}`;
      return { code, signal, reason };
    });
  }

  async connectAgent(signal: AbortSignal): Promise<Duplex> {
    for (;;) {
      try {
        return await connectHybridVsock(this.#files.vsock, AGENT_VSOCK_PORT, signal);
      } catch (e: unknown) {
        if (this.#hasEnded || kindOf(e) !== 'unavailable') throw e;
      }
      await delay(CONNECT_POLL_MS, undefined, { signal });
    }
  }

  async resize({ vcpus, memoryBytes }: VmSize): Promise<Required<VmSize>> {
    const now = { vcpus: this.#config.vcpus, memoryBytes: this.#config.memoryBytes };
    if ((vcpus ?? 0) > now.vcpus || (memoryBytes ?? 0n) > now.memoryBytes) {
      throw new BerthError('unimplemented', 'firecracker: a machine keeps the size that it has');
    }
    return now;
  }

  async addDisk({ id, path, readOnly }: VmDisk, signal: AbortSignal): Promise<string> {
    if (this.#taken.has(id)) throw new BerthError('alreadyExists', `disk ${id} is there already`);
    const taken = new Set(this.#taken.values());
    const place = this.#places.find((free) => free.readOnly === readOnly && !taken.has(free));
    if (place === undefined) {
      const kind = readOnly ? 'read-only' : 'writable';
      throw new BerthError('exhausted', `all places for ${kind} disks of the machine are taken`);
    }
    this.#taken.set(id, place);
    try {
      await callApi(this.#files.api, exchange(place, path), signal);
    } catch (e: unknown) {
      this.#taken.delete(id);
      throw e;
    }
    return place.device;
  }

  async removeDisk(id: string, signal: AbortSignal): Promise<void> {
    const place = this.#taken.get(id);
    if (place === undefined) return;
    await callApi(this.#files.api, exchange(place, this.#files.empty), signal);
    this.#taken.delete(id);
  }

  /** There is no console: see `startCalls`. */
  async console(): Promise<string> {
    return '';
  }

  async stop(signal: AbortSignal): Promise<void> {
    await this.#child.kill(signal);
    await orAborted(this.ended, signal);
  }

  /** Nothing is held. */
  async close(): Promise<void> {}
}
