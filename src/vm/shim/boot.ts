import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, during } from '../../errors.ts';
import { AgentClient } from '../agent-client/client.ts';
import { SHARE_PATH, SHARE_TAG } from '../protocol/names.ts';
import type { Vm } from '../types.ts';
import { restrictCpus } from './cgroup.ts';
import { Copies } from './copies.ts';
import type { HostCpus } from './cpuset.ts';
import { hostVolumes, planGuestSpec, refuse } from './guest-spec.ts';
import { type BootParts, HostSide } from './host-side.ts';
import type { Boot, Machine } from './machine.ts';
import type { JsonObject, OciSpec } from './oci.ts';
import { RootDisks } from './root-disks.ts';
import type { RootDisk } from './rootfs.ts';
import { shareRootfs, unshare } from './share.ts';
import { annotatedLimits, machineSize, nodeSize, type SandboxLimits } from './size.ts';
import { SharedVolumes } from './volumes.ts';

/** A guest that is asked to end has this long to store what it has written, milliseconds. */
const SHUT_DOWN_MS = 3_000;
/** A guest that is busy takes its time to give memory back, milliseconds. */
const RESIZE_MS = 30_000;
/** How long a machine may take to say why it ended, milliseconds. */
const LAST_WORDS_MS = 2_000;

/** Boots real machines: hypervisor, file server, network, and the agent that answers in the guest. */
export function bootMachine(parts: BootParts): Boot {
  return async (spec, onEvent) => {
    refuse(spec);
    const { boot_timeout } = parts.settings;
    const signal = AbortSignal.timeout(boot_timeout * 1000);
    const began = performance.now();
    const limits = annotatedLimits(spec.annotations);
    let host: HostSide | undefined;
    try {
      host = await HostSide.start(parts, spec, machineSize(limits, parts.settings, nodeSize()), signal);
      const agent = await reach(host.vm, signal);
      agent.onEvent(onEvent);
      await configure(agent, host, spec, signal);
      const { kernel, bootMs } = agent.hello;
      parts.log(
        'debug',
        `booted ${kernel} in ${Math.round(performance.now() - began)} ms (guest: ${bootMs})`,
      );
      return new BootedMachine(parts, host, agent, { limits, cgroupsPath: spec.cgroupsPath });
    } catch (e: unknown) {
      await host?.close();
      const why = signal.aborted
        ? new BerthError('deadline', `did not come up within ${boot_timeout} s (vm.boot_timeout)`, {
            cause: e,
          })
        : e;
      throw during('virtual machine', why);
    }
  };
}

/** The connection is there at once; what is waited for is an answer, or the end of the machine. */
async function reach(vm: Vm, signal: AbortSignal): Promise<AgentClient> {
  const over = new AbortController();
  const ended = vm.ended.then(
    ({ reason }) => new BerthError('unavailable', `ended while booting: ${reason}`),
  );
  void ended.then((problem) => over.abort(problem));
  const either = AbortSignal.any([signal, over.signal]);
  try {
    return await AgentClient.connect(await vm.connectAgent(either), either);
  } catch (e: unknown) {
    signal.throwIfAborted();
    // A machine that ends closes its connections first; its last words tell more.
    throw await Promise.race([ended, delay(LAST_WORDS_MS, e, { ref: false })]);
  }
}

async function configure(
  agent: AgentClient,
  { interfaces, sharesFiles }: HostSide,
  spec: OciSpec,
  signal: AbortSignal,
): Promise<void> {
  const request = {
    hostname: spec.hostname || 'localhost',
    // Containers have their pod's resolv.conf; the guest itself asks for no names.
    dns: { servers: [], searches: [], options: [] },
    interfaces: [...interfaces],
    sysctls: spec.sysctls,
    time: Date.now(),
    shares: sharesFiles ? [{ tag: SHARE_TAG, path: SHARE_PATH }] : [],
  };
  await agent.call('configure', request, signal);
}

class BootedMachine implements Machine {
  readonly pid: number;
  readonly agent: AgentClient;
  readonly ended: Promise<string>;
  readonly #parts: BootParts;
  readonly #host: HostSide;
  readonly #disks: RootDisks;
  readonly #volumes: SharedVolumes;
  readonly #copies: Copies;
  #limits: SandboxLimits;
  readonly #cgroupsPath: string;
  #restricted: Promise<void> = Promise.resolve();
  #stopping: Promise<void> | undefined;

  constructor(
    parts: BootParts,
    host: HostSide,
    agent: AgentClient,
    { limits, cgroupsPath }: { limits: SandboxLimits; cgroupsPath: string },
  ) {
    this.#cgroupsPath = cgroupsPath;
    this.#parts = parts;
    this.#limits = limits;
    this.#host = host;
    this.#volumes = new SharedVolumes(parts.directory, {
      bind: (source, target) =>
        agent.call('mounts', { add: [{ source, type: 'bind', target, options: ['rbind'] }] }),
      unmount: (target) => agent.call('unmount', { target }),
    });
    this.agent = agent;
    this.#disks = new RootDisks(host.vm, agent, parts.log);
    this.#copies = new Copies(agent, parts.log);
    this.pid = host.vm.process.pid;
    this.ended = host.ended;
    // A machine whose agent has gone can do nothing more but pretend.
    void this.agent.closed.then((problem) => {
      if (problem === undefined || this.#stopping !== undefined) return;
      parts.log('warn', `the guest's agent is lost: ${problem.message}`);
      void this.stop();
    });
  }

  get takesDisks(): boolean {
    return this.#parts.settings.rootfs !== 'virtiofs';
  }

  async share(id: string, spec: OciSpec, rootfs: string | readonly RootDisk[]): Promise<JsonObject> {
    const { sharesFiles } = this.#host;
    if (typeof rootfs === 'string' && !sharesFiles) {
      throw new BerthError(
        'unimplemented',
        'rootfs: the hypervisor shares no directories: it must be on disks',
      );
    }
    const volumes = await (sharesFiles ? this.#volumes : this.#copies).add(id, hostVolumes(spec));
    if (typeof rootfs !== 'string')
      return planGuestSpec(spec, id, volumes, await this.#disks.attach(id, rootfs));
    await shareRootfs(this.#parts.directory, id, rootfs);
    return planGuestSpec(spec, id, volumes);
  }

  bringBack(id: string): Promise<void> {
    return this.#copies.bringBack(id);
  }

  async unshare(id: string): Promise<void> {
    this.#copies.remove(id);
    await this.#disks.detach(id);
    await unshare(this.#parts.directory, id);
    await this.#volumes.remove(id);
  }

  runOn(cpus: HostCpus): Promise<void> {
    // One after the other: the last is to hold.
    const done = this.#restricted.then(() => restrictCpus(this.#cgroupsPath, cpus));
    this.#restricted = done.catch(() => {});
    return done;
  }

  async resize(limits: SandboxLimits): Promise<void> {
    // An update tells what has changed.
    this.#limits = { ...this.#limits, ...limits };
    const { vcpus, memoryBytes } = machineSize(this.#limits, this.#parts.settings, nodeSize());
    await this.#host.vm.resize({ vcpus, memoryBytes }, AbortSignal.timeout(RESIZE_MS));
    await this.agent.call('online', {});
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const patience = AbortSignal.timeout(SHUT_DOWN_MS);
    await this.agent.call('shutdown', {}, patience).catch(() => {});
    const { promise: late, resolve } = Promise.withResolvers<void>();
    patience.addEventListener('abort', () => resolve(), { once: true });
    if (!patience.aborted) await Promise.race([this.ended, late]);
    this.#copies.close();
    this.agent.close();
    await this.#host.close();
  }
}
