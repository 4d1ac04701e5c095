import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MS_BIND, MS_SHARED, mount, unmount } from '../../src/sys/mount.ts';
import { AgentClient, type AgentStream } from '../../src/vm/agent-client/client.ts';
import { agentFiles } from '../../src/vm/guest-image/agent-files.ts';
import { buildGuestImage } from '../../src/vm/guest-image/build.ts';
import { Qemu } from '../../src/vm/hypervisor/qemu/qemu.ts';
import type { AgentEvent } from '../../src/vm/protocol/messages.ts';
import { Virtiofsd } from '../../src/vm/storage/virtiofsd.ts';
import type { GuestImage, Vm, VmConfig } from '../../src/vm/types.ts';

const MIB = 1024n * 1024n;
const BUILD_MS = 300_000;
/** Seconds under emulation on an idle machine; much more when others use it. */
const BOOT_MS = 100_000;
const END_MS = 20_000;

/** Where guest images of tests are kept between runs. */
export function guestImages(): string {
  return path.join(process.env.XDG_CACHE_HOME ?? '/var/cache', 'berth-test-node', 'guest');
}

/** The guest image of this checkout, built if there is none. */
export async function testGuestImage(): Promise<GuestImage> {
  const { image } = await buildGuestImage({
    dir: guestImages(),
    agent: agentFiles(),
    force: false,
    progress: () => {},
    signal: AbortSignal.timeout(BUILD_MS),
  });
  return image;
}

/** A machine with a share and its agent, without berthd. */
export interface Guest {
  dir: string;
  /** Of the host; `/run/berth/shared` in the guest. */
  shared: string;
  image: GuestImage;
  vm: Vm;
  client: AgentClient;
  events: AgentEvent[];
  close(): Promise<void>;
}

/** @param changes to the plainest machine, with a place for a disk to be added */
export async function bootGuest(changes: Partial<VmConfig> = {}): Promise<Guest> {
  const boot = await testGuestImage();
  const dir = await mkdtemp(path.join(tmpdir(), 'berth-guest-'));
  const shared = path.join(dir, 'shared');
  await mkdir(shared);
  mount(shared, shared, null, MS_BIND);
  mount(null, shared, null, MS_SHARED);
  const undo: (() => unknown)[] = [() => rm(dir, { recursive: true }), () => unmount(shared, { lazy: true })];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const socket = path.join(dir, 'fs.sock');
    const files = await Virtiofsd.start({
      ...{ program: '/usr/lib/qemu/virtiofsd', kind: 'c', cache: 'auto', dir: shared, socket },
      ...{ logFile: path.join(dir, 'fs.log'), cgroups: [] },
    });
    undo.push(() => files.stop(AbortSignal.timeout(END_MS)));
    const vm = await new Qemu(SETTINGS).start(
      { ...MACHINE, id: 'f'.repeat(64), dir, boot, shares: [{ tag: 'berth', socket }], ...changes },
      AbortSignal.timeout(END_MS),
    );
    undo.push(() => vm.stop(AbortSignal.timeout(END_MS)));
    const started = AbortSignal.timeout(BOOT_MS);
    const ended = vm.ended.then(({ reason }) => Promise.reject(new Error(`the guest has ended: ${reason}`)));
    ended.catch(() => {});
    const connecting = AgentClient.connect(await vm.connectAgent(started), started);
    const client = await Promise.race([connecting, ended]);
    undo.push(() => client.close());
    const events: AgentEvent[] = [];
    client.onEvent((event) => events.push(event));
    return { dir, shared, image: boot, vm, client, events, close };
  } catch (e: unknown) {
    await close();
    throw e;
  }
}

const SETTINGS = {
  program: '/usr/bin/qemu-system-x86_64',
  machine: 'q35',
  accelerator: 'tcg',
  rootDevice: 'pmem',
  translationCache: 64,
  vhostNet: false,
  hotplugPorts: 1,
} as const;

const MACHINE = {
  netns: undefined,
  cgroups: [],
  vcpus: 1,
  maxVcpus: 1,
  memoryBytes: 320n * MIB,
  maxMemoryBytes: 320n * MIB,
  kernelArgs: [],
  channel: 'virtio-serial',
  nics: [],
  disks: [],
} as const;

/** All that a stream brings. */
export async function textOf(stream: AgentStream): Promise<string> {
  let text = '';
  for await (const chunk of stream) text += String(chunk);
  return text;
}
