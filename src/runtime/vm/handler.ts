import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Resources } from '../../../cgroups/types.ts';
import { kindOf } from '../../errors.ts';
import type { Paths } from '../../paths.ts';
import type { ProcessEnd } from '../../shim/task.ts';
import { familyOf } from '../../sys/descendants.ts';
import { orAborted } from '../../util/abort.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import { connectGuest } from '../../vm/dial.ts';
import { readVmMemory, type VmMemory } from '../../vm/memory.ts';
import { VmDirectory } from '../../vm/shim/directory.ts';
import { KILLED_CODE, readEnd } from '../../vm/shim/end-file.ts';
import type { VmSettings } from '../../vm/shim/settings.ts';
import type { GuestUsage, RootDisksWanted } from '../handler.ts';
import { ShimHandler, type ShimHandlerOptions } from '../shim/handler.ts';
import { livingShim } from '../shim/shim.ts';
import { toUsage } from './usage.ts';

const MIB = 1n << 20n;
/** A shim that has not ended in order by then is killed, milliseconds. */
const SHUT_DOWN_MS = 10_000;

/**
 * The handler of virtual machines: berth's own shim. Containers are in no cgroup of this host, and the pod's loopback is
 * the guest's.
 */
export class VmHandler extends ShimHandler {
  readonly rootDisks?: RootDisksWanted;
  readonly #namespace: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #paths: Paths;
  readonly #guestDir: string;

  constructor(options: ShimHandlerOptions & { vm: VmSettings }) {
    super(options);
    const { rootfs: kind, disk_size, guest_dir } = options.vm;
    if (kind !== 'virtiofs') this.rootDisks = { kind, freeBytes: BigInt(disk_size) * MIB };
    this.#namespace = options.program.namespace;
    this.#env = { ...options.program.env };
    this.#paths = options.paths;
    this.#guestDir = guest_dir;
  }

  override async delete(id: string): Promise<void> {
    await super.delete(id);
    const { path } = VmDirectory.of(this.#namespace, id, this.#env);
    // A shim that was killed in the middle of its end leaves it. Containers have none.
    if (existsSync(path)) await this.deleteWithoutShim(id, this.#paths.sandbox(id).dir);
  }

  /** Its shim notes ends, and what it has not noted ends with the machine. */
  override isMonitored(): boolean {
    return true;
  }

  protected override async deleteWithoutShim(id: string, dir: string): Promise<ProcessEnd> {
    const noted = readEnd(dir);
    const forced = await super.deleteWithoutShim(id, dir);
    return noted ?? forced ?? { code: KILLED_CODE, at: nowNs() };
  }

  /** What a guest has written but not stored would be lost with its process, which is in the sandbox's cgroup. */
  async shutDown(sandboxId: string): Promise<void> {
    const patience = new AbortController();
    await Promise.race([
      this.delete(sandboxId).catch(() => {}),
      delay(SHUT_DOWN_MS, undefined, { signal: patience.signal, ref: false }).catch(() => {}),
    ]);
    patience.abort();
  }

  override async usage(id: string, signal: AbortSignal): Promise<GuestUsage> {
    const tasks = await orAborted(this.tasksOf(id), signal);
    try {
      return toUsage(await orAborted(tasks.figures(id), signal));
    } catch (e: unknown) {
      // A shim that an earlier berthd has started.
      if (kindOf(e) !== 'unimplemented') throw e;
      return super.usage(id, signal);
    }
  }

  resizeSandbox(sandboxId: string, resources: Resources): Promise<void> {
    return this.update(sandboxId, resources);
  }

  /** The shim has started all of them. */
  async memory(sandboxId: string): Promise<VmMemory | undefined> {
    const shim = livingShim(this.#paths.sandbox(sandboxId).dir);
    if (shim === undefined) return undefined;
    const pids = (await familyOf(shim)).map(({ pid }) => pid);
    return readVmMemory(pids, this.#guestDir);
  }

  dial(sandboxId: string, port: number, signal: AbortSignal): Promise<Socket> {
    return connectGuest(VmDirectory.of(this.#namespace, sandboxId, this.#env).dial, port, signal);
  }
}
