import { join } from 'node:path';
import { messageOf } from '../../errors.ts';
import { findGuestImage } from '../guest-image/find.ts';
import { connectNetwork } from '../network/connect.ts';
import { Probes } from '../probes.ts';
import type { GuestInterface } from '../protocol/messages.ts';
import { SHARE_TAG } from '../protocol/names.ts';
import { Virtiofsd, virtiofsdKind } from '../storage/virtiofsd.ts';
import type { Vm } from '../types.ts';
import type { VmDirectory } from './directory.ts';
import { chooseChannel, makeHypervisor } from './hypervisor.ts';
import type { Log } from './machine.ts';
import type { OciSpec } from './oci.ts';
import type { VmSettings } from './settings.ts';
import { makeShare, removeShare } from './share.ts';
import type { MachineSize } from './size.ts';

const STOP_MS = 10_000;
const KINDS = ['c', 'rust'] as const;

/** What machines are booted with. */
export interface BootParts {
  /** The sandbox's. */
  id: string;
  directory: VmDirectory;
  settings: VmSettings;
  log: Log;
}

/** What a machine is made of on the host. */
export class HostSide {
  readonly vm: Vm;
  /** The guest sees the machine's directory of shared files. */
  readonly sharesFiles: boolean;
  /** For the guest to set up. */
  readonly interfaces: readonly GuestInterface[];
  /** When the hypervisor or what serves its files has ended: with one line for people. Never rejects. */
  readonly ended: Promise<string>;
  readonly #undo: readonly Undo[];
  readonly #log: Log;
  #closing: Promise<void> | undefined;

  private constructor(made: Made, undo: readonly Undo[], log: Log) {
    this.vm = made.vm;
    this.interfaces = made.interfaces;
    const parts = [made.vm.ended, ...(made.files === undefined ? [] : [made.files.ended])];
    this.sharesFiles = made.files !== undefined;
    this.ended = Promise.race(parts).then(({ reason }) => reason);
    this.#undo = undo;
    this.#log = log;
    // Without its files a guest can do nothing but pretend, and none of its helpers is of use without it.
    void this.ended.then(() => this.close());
  }

  /** Starts it all. @throws BerthError; SyscallError; the signal's reason. Nothing is left then */
  static async start(
    parts: BootParts,
    spec: OciSpec,
    size: MachineSize,
    signal: AbortSignal,
  ): Promise<HostSide> {
    const undo: Undo[] = [];
    try {
      const made = await make(parts, spec, size, signal, undo);
      return new HostSide(made, undo, parts.log);
    } catch (e: unknown) {
      await undoAll(undo, parts.log);
      throw e;
    }
  }

  /** Ends all of it and takes it away. Repeatable; never rejects. */
  close(): Promise<void> {
    this.#closing ??= undoAll(this.#undo, this.#log);
    return this.#closing;
  }
}

interface Made {
  vm: Vm;
  files: Virtiofsd | undefined;
  interfaces: readonly GuestInterface[];
}

interface Undo {
  what: string;
  undo: () => Promise<void>;
}

async function make(
  { id, directory, settings }: BootParts,
  spec: OciSpec,
  size: MachineSize,
  signal: AbortSignal,
  undo: Undo[],
): Promise<Made> {
  const image = await findGuestImage(settings.guest_dir);
  const probes = new Probes(directory.probes);
  const hypervisor = await makeHypervisor(settings, probes, signal);
  const { sharedFs } = hypervisor.capabilities;
  const files = sharedFs ? await shareFiles(directory, settings, probes, signal, undo) : undefined;
  const netns = spec.namespace('network')?.path;
  const network =
    netns === undefined
      ? { nics: [], interfaces: [], close: async () => {} }
      : await connectNetwork({ netns, model: settings.network, dir: directory.vm }, signal);
  undo.push({ what: 'network', undo: () => network.close() });
  const vm = await hypervisor.start(
    {
      ...{ id, dir: directory.vm, netns, cgroups: [], ...size },
      ...{
        boot: image,
        kernelArgs: [],
        channel: hypervisor.name === 'qemu' ? chooseChannel(settings.channel) : 'vsock',
      },
      ...{ nics: network.nics, disks: [] },
      shares: files === undefined ? [] : [{ tag: SHARE_TAG, socket: shareSocket(directory) }],
    },
    signal,
  );
  undo.push({ what: 'hypervisor', undo: () => vm.stop(AbortSignal.timeout(STOP_MS)) });
  return { vm, files, interfaces: network.interfaces };
}

function shareSocket({ vm }: VmDirectory): string {
  return join(vm, 'fs.sock');
}

async function shareFiles(
  directory: VmDirectory,
  { virtiofsd: program }: VmSettings,
  probes: Probes,
  signal: AbortSignal,
  undo: Undo[],
): Promise<Virtiofsd> {
  await makeShare(directory);
  undo.push({ what: 'share', undo: () => removeShare(directory) });
  const files = await Virtiofsd.start({
    program,
    kind: await probes.ask('virtiofsd', [program], () => virtiofsdKind(program, signal), KINDS),
    cache: 'auto',
    dir: directory.shared,
    socket: shareSocket(directory),
    logFile: join(directory.vm, 'fs.log'),
    cgroups: [],
  });
  undo.push({ what: 'file server', undo: () => files.stop(AbortSignal.timeout(STOP_MS)) });
  return files;
}

/** The last that was made first; all are tried. */
async function undoAll(steps: readonly Undo[], log: Log): Promise<void> {
  for (const { what, undo } of steps.toReversed()) {
    await undo().catch((e: unknown) => log('warn', `${what}: could not be taken down: ${messageOf(e)}`));
  }
}
