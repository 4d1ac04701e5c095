import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AttachLock } from '../../cgroups/index.ts';
import type { CgroupDriver } from '../../cgroups/types.ts';
import type { Config, RuntimeConfig } from '../config/schema.ts';
import type { Attachments } from '../container/attachments.ts';
import { isErrno, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Paths } from '../paths.ts';
import { listenForEvents } from '../shim/events-sink.ts';
import { loadShimProtos } from '../shim/protos.ts';
import { writeFileAtomic } from '../sys/atomic-file.ts';
import type { Poller } from '../sys/poller.ts';
import { vmShimProgram } from '../vm/program.ts';
import { STATE_VARIABLE } from '../vm/shim/directory.ts';
import { SETTINGS_VARIABLE, type VmSettings } from '../vm/shim/settings.ts';
import type { RuntimeHandler } from './handler.ts';
import { OciHandler } from './oci/handler.ts';
import { ShimHandler } from './shim/handler.ts';
import { VmHandler } from './vm/handler.ts';

/** What runtime handlers are made with. */
export interface HandlerParts {
  config: Config;
  cgroupDriver: CgroupDriver;
  paths: Paths;
  poller: Poller;
  log: Logger;
  attachments: Attachments;
  attachLock: AttachLock;
  /** The sandbox of a container, or the id itself when it is a sandbox's; undefined when it is neither. */
  sandboxOf(id: string): string | undefined;
}

/** All handlers of the configuration. */
export interface Handlers {
  /** The default handler is also known under the empty name, which is what a pod without RuntimeClass asks for. */
  byName: ReadonlyMap<string, RuntimeHandler>;
  /** Lets go of what runs for pods, which go on. Repeatable. */
  close(): Promise<void>;
}

/** @throws Error when the socket for shims' events cannot be made */
export async function makeHandlers(parts: HandlerParts): Promise<Handlers> {
  const { config } = parts;
  const byName = new Map<string, RuntimeHandler>();
  const entries = Object.entries(config.runtimes);
  for (const [name, { type, path }] of entries) {
    if (type === 'oci') byName.set(name, ociHandler(parts, name, path));
  }
  const shims = entries.filter(([, { type }]) => type !== 'oci');
  const closing = shims.length === 0 ? undefined : await addShimHandlers(parts, shims, byName);
  const standard = byName.get(config.default_runtime);
  if (standard !== undefined) byName.set('', standard);
  return { byName, close: async () => closing?.() };
}

function ociHandler(parts: HandlerParts, name: string, path: string): OciHandler {
  const { config, cgroupDriver, paths, poller, attachments, attachLock } = parts;
  const systemdCgroup = cgroupDriver === 'systemd';
  const root = paths.runtime(name);
  const program = { path, root, systemdCgroup };
  return new OciHandler({ ...program, conmon: config.conmon, paths, poller, attachments, attachLock });
}

/** @returns what closes them */
async function addShimHandlers(
  parts: HandlerParts,
  entries: readonly [string, Config['runtimes'][string]][],
  byName: Map<string, RuntimeHandler>,
): Promise<() => Promise<void>> {
  const { config, cgroupDriver, paths, poller, log, sandboxOf } = parts;
  const protos = loadShimProtos();
  const events = paths.shimEvents;
  const debug = config.log_level === 'debug' || config.log_level === 'trace';
  const handlers: ShimHandler[] = [];
  for (const [name, runtime] of entries) {
    const vm = runtime.type === 'vm' ? vmSettings(config.vm, runtime) : undefined;
    const program = {
      path: runtime.path || vmShimProgram(),
      namespace: name,
      events,
      debug,
      ...(vm === undefined ? {} : { env: await tellVmShims(paths, name, vm) }),
    };
    const options = {
      ...{ program, protos, poller, log, paths, name, sandboxOf },
      pause: config.pause,
      systemdCgroup: cgroupDriver === 'systemd',
    };
    const handler = vm === undefined ? new ShimHandler(options) : new VmHandler({ ...options, vm });
    byName.set(name, handler);
    handlers.push(handler);
  }
  const sink = await listenForEvents(events, protos, (event) => {
    log.debug({ event }, 'event of a shim');
    if (event.kind === 'oom') void noteOom(parts, event.container);
  });
  return async () => {
    await sink.close();
    for (const handler of handlers) await handler.close();
  };
}

/** `[vm]` as one handler has it. */
function vmSettings(vm: VmSettings, { hypervisor, rootfs }: RuntimeConfig): VmSettings {
  return { ...vm, hypervisor: hypervisor ?? vm.hypervisor, rootfs: rootfs ?? vm.rootfs };
}

/** @returns the environment by which berth's own shim finds its settings and its place */
async function tellVmShims(paths: Paths, handler: string, vm: VmSettings): Promise<Record<string, string>> {
  await mkdir(paths.machines, { recursive: true, mode: 0o700 });
  const settings = join(paths.machines, `settings-${handler}.json`);
  await writeFileAtomic(settings, JSON.stringify(vm), { mode: 0o600 });
  return { [STATE_VARIABLE]: paths.machines, [SETTINGS_VARIABLE]: settings };
}

/** Leaves the mark that conmon leaves when the OOM killer strikes in a container. */
async function noteOom({ paths, log, sandboxOf }: HandlerParts, id: string): Promise<void> {
  const sandboxId = sandboxOf(id);
  // What is not on record may be anything but an id.
  if (sandboxId === undefined || sandboxId === id) return;
  await writeFile(join(paths.container(id).bundle, 'oom'), '').catch((e: unknown) => {
    if (!isErrno(e, 'ENOENT')) log.warn({ container: id, reason: messageOf(e) }, 'an OOM kill is not noted');
  });
}
