import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import * as z from 'zod/mini';
import { BerthError } from '../../../errors.ts';
import type { ProcessIdentity } from '../../../sys/process-identity.ts';
import { orAborted } from '../../../util/abort.ts';
import { lastLine, type VmProcess } from '../../process.ts';
import { AGENT_VSOCK_PORT } from '../../protocol/names.ts';
import type { Vm, VmConfig, VmDisk, VmEnd, VmSize } from '../../types.ts';
import { connectGuestPort } from '../vsock.ts';
import { CONSOLE_BYTES, growthBytes, ID, MEMORY_STEP, type QemuSettings, roundUp } from './argv.ts';
import { HotplugDisks } from './hotplug.ts';
import type { Qmp, QmpEvent } from './qmp.ts';

/** For reading the last words of a guest that has ended, milliseconds. */
const WORDS_MS = 2_000;
/** Until the guest has noticed processors that were added, milliseconds. */
const NOTICE_MS = 3_000;
/** Until the guest has taken or given memory, and how often that is asked, milliseconds. */
const MEMORY_MS = 30_000;
const MEMORY_POLL_MS = 100;

const cpuReport = z.object({ info: z.object({ 'slot-type': z.literal('CPU') }) });
const status = z.object({ status: z.string(), running: z.boolean() });
const hotpluggable = z.array(
  z.object({
    type: z.string(),
    props: z.record(z.string(), z.number()),
    'qom-path': z.optional(z.string()),
  }),
);

interface Parts {
  settings: QemuSettings;
  config: VmConfig;
  child: VmProcess;
  qmp: Qmp;
  agentSocket: string;
  /** With the channel `vsock`: the guest's address. */
  cid?: number;
}

/** One machine under QEMU. */
export class QemuVm implements Vm {
  readonly process: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly #parts: Parts;
  readonly #disks: HotplugDisks;
  /** Reading the console's ring empties it, so what was read is kept. */
  #console = '';
  /** Why the guest ended, when it was the guest that did. */
  #guestEnd: Promise<string> | undefined;

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.#disks = new HotplugDisks(parts.qmp, parts.settings);
    this.process = parts.child.identity;
    this.ended = this.#end();
    parts.qmp.onEvent((event) => this.#notice(event));
  }

  /** Takes over a machine whose QMP is ready. @throws BerthError */
  static async of(parts: Parts): Promise<QemuVm> {
    const vm = new QemuVm(parts);
    // What happened before the negotiation was not told.
    const now = status.parse(await parts.qmp.execute('query-status'));
    if (!now.running) vm.#finish(now.status);
    return vm;
  }

  connectAgent(signal: AbortSignal): Promise<Duplex> {
    const { agentSocket, cid } = this.#parts;
    if (cid !== undefined) return connectGuestPort({ cid, port: AGENT_VSOCK_PORT }, signal);
    const socket = connect(agentSocket);
    const { promise, resolve, reject } = Promise.withResolvers<Duplex>();
    socket.once('connect', () => resolve(socket));
    socket.once('error', (cause) =>
      reject(new BerthError('unavailable', `${agentSocket}: ${cause.message}`, { cause })),
    );
    return orAborted(promise, signal).catch((e: unknown) => {
      socket.destroy();
      throw e;
    });
  }

  async addDisk(disk: VmDisk, signal: AbortSignal): Promise<string> {
    await this.#disks.add(disk, signal);
    return `serial:${disk.id}`;
  }

  removeDisk(id: string, signal: AbortSignal): Promise<void> {
    return this.#disks.remove(id, signal);
  }

  async console(signal: AbortSignal): Promise<string> {
    const args = { device: ID.console, size: CONSOLE_BYTES };
    const more = z.string().parse(await this.#parts.qmp.execute('ringbuf-read', args, { signal }));
    this.#console = (this.#console + more).slice(-CONSOLE_BYTES);
    return this.#console;
  }

  async resize({ vcpus, memoryBytes }: VmSize, signal: AbortSignal): Promise<Required<VmSize>> {
    return {
      vcpus: await this.#resizeVcpus(vcpus, signal),
      memoryBytes: await this.#resizeMemory(memoryBytes, signal),
    };
  }

  async stop(signal: AbortSignal): Promise<void> {
    await this.#parts.child.kill(signal);
    await orAborted(this.ended, signal);
  }

  async close(): Promise<void> {
    this.#parts.qmp.close();
  }

  /** Processors are added one by one; x86 guests do not give one back that they have not put offline. */
  async #resizeVcpus(wanted: number | undefined, signal: AbortSignal): Promise<number> {
    const { qmp, config } = this.#parts;
    const slots = hotpluggable.parse(await qmp.execute('query-hotpluggable-cpus', undefined, { signal }));
    const present = slots.filter((slot) => slot['qom-path'] !== undefined).length;
    if (wanted === undefined || wanted <= present) return present;
    if (wanted > config.maxVcpus) {
      throw new BerthError('invalid', `${wanted} vCPUs: the machine was made for ${config.maxVcpus} at most`);
    }
    // QEMU lists them from the highest to the lowest.
    const free = slots.filter((slot) => slot['qom-path'] === undefined).reverse();
    const added = free.slice(0, wanted - present);
    const noticed = this.#guestNotices(added.length);
    for (const { type, props } of added) {
      await qmp.execute('device_add', { driver: type, ...props }, { signal });
    }
    await orAborted(noticed, signal);
    return wanted;
  }

  /**
   * Resolves when the guest's firmware interface has reported on so many processors (ACPI's _OST), before which
   * the guest cannot use them; or after a while, as a guest that boots does not report.
   */
  async #guestNotices(count: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    let left = count;
    const unlisten = this.#parts.qmp.onEvent(({ name, data }) => {
      if (name === 'ACPI_DEVICE_OST' && cpuReport.safeParse(data).success && --left <= 0) resolve();
    });
    const timer = setTimeout(resolve, NOTICE_MS);
    await promise.finally(() => {
      clearTimeout(timer);
      unlisten();
    });
  }

  async #resizeMemory(wanted: bigint | undefined, signal: AbortSignal): Promise<bigint> {
    const { config, qmp } = this.#parts;
    const { memoryBytes: base } = config;
    const limit = growthBytes(config);
    if (limit === 0n) {
      if (wanted === undefined || wanted <= base) return base;
      throw new BerthError('invalid', `memory: the machine was made for ${base} bytes`);
    }
    const path = `/machine/peripheral/${ID.moreMemory}`;
    const size = async (): Promise<bigint> =>
      BigInt(z.number().parse(await qmp.execute('qom-get', { path, property: 'size' }, { signal })));
    if (wanted === undefined) return base + (await size());
    const more = wanted > base ? roundUp(wanted - base, MEMORY_STEP) : 0n;
    if (more > limit) throw new BerthError('invalid', `memory: at most ${base + limit} bytes`);
    await qmp.execute('qom-set', { path, property: 'requested-size', value: more }, { signal });
    // The guest takes its time, and may keep some of what it is asked to give.
    const giveUp = performance.now() + MEMORY_MS;
    let reached = await size();
    while (reached !== more && performance.now() < giveUp) {
      await delay(MEMORY_POLL_MS, undefined, { signal });
      reached = await size();
    }
    return base + reached;
  }

  #notice({ name, data }: QmpEvent): void {
    if (name === 'GUEST_PANICKED') this.#finish('guest-panicked');
    else if (name === 'SHUTDOWN') this.#finish(String(data.reason));
  }

  /** The guest has ended and QEMU waits with what it knows. */
  #finish(why: string): void {
    this.#guestEnd ??= this.#describe(why).finally(() =>
      this.#parts.child.kill(AbortSignal.timeout(WORDS_MS)).catch(() => {}),
    );
  }

  async #describe(why: string): Promise<string> {
    const text = await this.console(AbortSignal.timeout(WORDS_MS)).catch(() => this.#console);
    const panic = text.split('\n').findLast((line) => line.includes('Kernel panic'));
    if (panic !== undefined) return lastLine(panic);
    if (why === 'guest-shutdown') return 'the guest has shut down';
    const words = lastLine(text);
    return `${ENDINGS.get(why) ?? `the guest has ended (${why})`}${words === '' ? '' : `: ${words}`}`;
  }

  async #end(): Promise<VmEnd> {
    const { child, qmp } = this.#parts;
    const { code, signal } = await child.exited;
    qmp.close();
    const reason = await (this.#guestEnd ?? child.lastWords().then((words) => `QEMU: ${words}`));
    return { code, signal, reason };
  }
}

const ENDINGS: ReadonlyMap<string, string> = new Map([
  ['guest-panicked', "the guest's kernel has panicked"],
  ['guest-panic', "the guest's kernel has panicked"],
  ['guest-reset', 'the guest has rebooted'],
]);
