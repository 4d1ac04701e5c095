import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, release } from 'node:os';
import { BerthError, notFound } from '../../errors.ts';
import { deviceNames } from '../../metrics/devices.ts';
import { OpenFileCounts } from '../../metrics/open-files.ts';
import { unmount } from '../../sys/mount.ts';
import { setClock, syncAll } from '../../sys/power.ts';
import { MuxDuplex } from '../channel/mux-duplex.ts';
import type { AgentEvent, Method, Params, Result } from '../protocol/messages.ts';
import type { Mux } from '../protocol/mux.ts';
import { PROTOCOL_VERSION } from '../protocol/names.ts';
import { Container } from './container.ts';
import { dial } from './dial.ts';
import { getFile, putFiles } from './files.ts';
import { addMount } from './mounts.ts';
import { configureInterfaces, configureNames } from './network.ts';
import { bringOnline } from './online.ts';
import { PodPidNamespace } from './pid-namespace.ts';
import { openStreams } from './process.ts';
import type { Reaper } from './reaper.ts';
import type { GuestRuntime } from './runtime.ts';
import { completeSpec, rootPath } from './spec.ts';
import { containerStats, memoryField, podStats } from './stats.ts';
import { CGROUP_ROOT, CONTAINERS_CGROUP } from './system.ts';

const CONTAINER = 'container:';

/** What each call does. Streams are opened before anything is awaited. */
export type Handlers = {
  [M in Method]: (params: Params<M>, mux: Mux) => Promise<Result<M>> | Result<M>;
};

export interface AgentParts {
  runtime: GuestRuntime;
  reaper: Reaper;
  /** Resolves when all drivers that the guest needs are loaded. */
  drivers: Promise<void>;
  tell(event: AgentEvent): void;
}

/** The containers of this machine, and all that the host may ask of it. */
export class Agent {
  readonly #parts: AgentParts;
  readonly #containers = new Map<string, Container>();
  readonly #podPids: PodPidNamespace;
  readonly #openFiles = new OpenFileCounts();

  constructor(parts: AgentParts) {
    this.#parts = parts;
    this.#podPids = new PodPidNamespace(parts.reaper);
  }

  readonly handlers: Handlers = {
    hello,
    configure: (params) => this.#configure(params),
    createContainer: (params, mux) => this.#create(params, mux),
    start: async ({ id }) => {
      await this.#find(id).start();
      return {};
    },
    signal: ({ id, execId, signal, all = false }) => {
      const container = this.#find(id);
      if (all) return { sent: container.signalAll(signal) };
      return { sent: container.process(execId).signal(signal) };
    },
    remove: ({ id, execId }) => this.#remove(id, execId),
    exec: async (params, mux) => {
      const container = this.#find(params.id);
      return { pid: await container.exec(openStreams(mux, params.streams), params) };
    },
    resize: ({ id, execId, width, height }) => {
      this.#find(id).process(execId).resize({ width, height });
      return {};
    },
    closeStdin: ({ id, execId }) => {
      this.#find(id).process(execId).closeStdin();
      return {};
    },
    update: ({ id, resources }) => this.#update(id, resources),
    pids: ({ id }) => ({ pids: this.#find(id).pids() }),
    pause: ({ id }) => this.#verb(id, 'pause'),
    resume: ({ id }) => this.#verb(id, 'resume'),
    stats: ({ id }) => this.#stats(this.#find(id)),
    podStats,
    dial: async ({ port, streamId }, mux) => {
      await dial(port, new MuxDuplex(mux, streamId, { halfOpen: true }));
      return {};
    },
    mounts: async ({ add }) => {
      for (const request of add) await addMount(request);
      return {};
    },
    unmount: ({ target }) => {
      unmount(target);
      return {};
    },
    putFiles: async (params) => {
      await putFiles(params);
      return {};
    },
    getFile,
    online: bringOnline,
    shutdown: async () => {
      await this.stop();
      return {};
    },
  };

  /** Ends all containers; what they have written is stored then. */
  async stop(): Promise<void> {
    await writeFile(`${CGROUP_ROOT}${CONTAINERS_CGROUP}/cgroup.kill`, '1');
    await syncAll();
  }

  async #configure(params: Params<'configure'>): Promise<Result<'configure'>> {
    setClock(params.time);
    await this.#parts.drivers;
    await configureInterfaces(params.interfaces);
    await configureNames(params);
    for (const { tag, path } of params.shares) {
      await addMount({ source: tag, type: 'virtiofs', target: path, options: ['nodev'] });
    }
    return {};
  }

  async #create(params: Params<'createContainer'>, mux: Mux): Promise<Result<'createContainer'>> {
    const { id, spec, rootfs } = params;
    if (this.#containers.has(id)) throw new BerthError('alreadyExists', `container "${id}" exists`);
    const streams = openStreams(mux, params.streams);
    const container = new Container(id, this.#parts);
    this.#containers.set(id, container);
    try {
      if (rootfs !== undefined) {
        await addMount({ source: rootfs.device, type: rootfs.type, target: rootPath(spec), options: [] });
      }
      const config = await completeSpec(spec, {
        cgroupsPath: `${CONTAINERS_CGROUP}/${id}`,
        pidNamespace: (word) => this.#pidNamespace(word),
      });
      return { pid: await container.create(config, streams, params) };
    } catch (e: unknown) {
      this.#containers.delete(id);
      for (const stream of Object.values(streams)) stream.destroy();
      throw e;
    }
  }

  async #pidNamespace(word: string): Promise<string> {
    if (word === 'sandbox') return this.#podPids.path();
    if (!word.startsWith(CONTAINER)) throw new BerthError('invalid', `PID namespace "${word}"`);
    return `/proc/${this.#find(word.slice(CONTAINER.length)).process().pid}/ns/pid`;
  }

  async #remove(id: string, execId: string | undefined): Promise<Result<'remove'>> {
    const container = this.#containers.get(id);
    if (execId !== undefined) container?.removeExec(execId);
    else {
      await container?.remove();
      this.#containers.delete(id);
      this.#openFiles.retain(new Set(this.#containers.keys()));
    }
    return {};
  }

  async #update(id: string, resources: string): Promise<Result<'update'>> {
    const file = `${this.#find(id).dir}/resources.json`;
    await writeFile(file, resources);
    await this.#parts.runtime.run(['update', '--resources', file, id]);
    return {};
  }

  #stats(container: Container): Result<'stats'> {
    const { id, cgroup } = container;
    const initPid = container.process().pid;
    return containerStats({ id, cgroup, initPid }, { openFiles: this.#openFiles, deviceName: deviceNames() });
  }

  async #verb(id: string, verb: 'pause' | 'resume'): Promise<Record<string, never>> {
    this.#find(id);
    await this.#parts.runtime.run([verb, id]);
    return {};
  }

  #find(id: string): Container {
    const container = this.#containers.get(id);
    if (container === undefined) throw notFound(`container "${id}"`);
    return container;
  }
}

async function hello(): Promise<Result<'hello'>> {
  const [uptime, meminfo] = await Promise.all([
    readFile('/proc/uptime', 'utf8'),
    readFile('/proc/meminfo', 'utf8'),
  ]);
  return {
    version: PROTOCOL_VERSION,
    kernel: release(),
    bootMs: Math.round(Number.parseFloat(uptime) * 1000),
    memoryBytes: memoryField(meminfo, 'MemTotal'),
    cpus: availableParallelism(),
  };
}
