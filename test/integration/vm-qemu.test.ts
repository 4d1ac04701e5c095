import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, rmdir, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { namespaceInode, pinNamespaces, unpinNamespaces } from '../../src/sys/namespaces.ts';
import { isAlive } from '../../src/sys/process-identity.ts';
import type { QemuSettings } from '../../src/vm/hypervisor/qemu/argv.ts';
import { Qemu } from '../../src/vm/hypervisor/qemu/qemu.ts';
import type { Vm, VmConfig } from '../../src/vm/types.ts';
import { nodeImage } from '../node/image.ts';

const MIB = 1n << 20n;
const BOOT_MS = 50_000;
const V1_PIDS = '/sys/fs/cgroup/pids';

let dir: string;
let cgroup: string;
let kernel: string;
let machines: Vm[];

beforeEach(async () => {
  ({ kernel } = await nodeImage());
  dir = await mkdtemp(path.join(tmpdir(), 'berth-vm-'));
  // Where there is cgroup v2 alone, each cgroup is in one tree.
  cgroup = path.join(existsSync(V1_PIDS) ? V1_PIDS : '/sys/fs/cgroup', path.basename(dir));
  await mkdir(cgroup);
  machines = [];
});

afterEach(async () => {
  for (const vm of machines) await vm.stop(soon());
  unpinNamespaces(path.join(dir, 'ns'));
  await rmdir(cgroup);
  await rm(dir, { recursive: true });
});

const soon = () => AbortSignal.timeout(BOOT_MS);

async function start(changes: Partial<VmConfig> = {}, settings: Partial<QemuSettings> = {}): Promise<Vm> {
  const rootfs = path.join(dir, 'root.ext4');
  await writeFile(rootfs, '');
  await truncate(rootfs, 2 << 20);
  const vm = await new Qemu({
    program: 'qemu-system-x86_64',
    machine: 'q35',
    accelerator: 'tcg',
    rootDevice: 'pmem',
    translationCache: 32,
    vhostNet: false,
    hotplugPorts: 0,
    ...settings,
  }).start(
    {
      id: 'f'.repeat(64),
      dir,
      netns: undefined,
      cgroups: [],
      vcpus: 1,
      maxVcpus: 2,
      memoryBytes: 128n * MIB,
      maxMemoryBytes: 256n * MIB,
      boot: { kernel, rootfs, rootfsType: 'ext4', kernelArgs: ['console=ttyS0', 'quiet', 'panic=-1'] },
      kernelArgs: [],
      channel: 'virtio-serial',
      nics: [],
      disks: [],
      shares: [],
      ...changes,
    },
    soon(),
  );
  machines.push(vm);
  return vm;
}

describe('QEMU', () => {
  it("tells a guest's panic with the kernel's own words", async () => {
    const vm = await start();
    expect((await vm.ended).reason).toMatch(/Kernel panic - not syncing: VFS: Unable to mount root fs/);
    expect(isAlive(vm.process)).toBe(false);
  });

  it('runs in the network namespace and the cgroup of the pod', async () => {
    const netns = path.join(dir, 'ns/net');
    pinNamespaces(path.dirname(netns), ['net']);
    const procs = path.join(cgroup, 'cgroup.procs');
    const vm = await start({ netns, cgroups: [procs] });
    const { pid } = vm.process;
    expect(namespaceInode(`/proc/${pid}/ns/net`)).toBe(namespaceInode(netns));
    expect((await readFile(procs, 'utf8')).split('\n')).toContain(`${pid}`);
    expect(await readFile(`/proc/${pid}/comm`, 'utf8')).toBe('qemu-system-x86\n');
  });

  it('says that a killed machine was killed', async () => {
    const vm = await start();
    process.kill(vm.process.pid, 'SIGKILL');
    expect(await vm.ended).toEqual({ code: null, signal: 'SIGKILL', reason: 'QEMU: killed by SIGKILL' });
    await vm.stop(soon());
  });

  it('tells what there is, and refuses more than the machine was made for', async () => {
    const vm = await start();
    expect(await vm.resize({}, soon())).toEqual({ vcpus: 1, memoryBytes: 128n * MIB });
    await expect(vm.resize({ vcpus: 3 }, soon())).rejects.toMatchObject({ kind: 'invalid' });
    await expect(vm.resize({ memoryBytes: 1024n * MIB }, soon())).rejects.toMatchObject({ kind: 'invalid' });
  });

  it('connects to the port of the agent', async () => {
    const vm = await start();
    const stream = await vm.connectAgent(soon());
    stream.destroy();
    await vm.stop(soon());
    await expect(vm.connectAgent(soon())).rejects.toMatchObject({ kind: 'unavailable' });
  });

  it("leaves nothing when it does not start, and passes on QEMU's complaint", async () => {
    await expect(
      start({ boot: { kernel: '/nowhere', rootfs: '', rootfsType: 'ext4', kernelArgs: [] } }),
    ).rejects.toThrow('ENOENT');
    await expect(
      start({ shares: [{ tag: 't', socket: path.join(dir, 'nobody.sock') }] }),
    ).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringMatching(/QEMU did not start: .*nobody\.sock.*No such file/),
    });
    expect(existsSync(path.join(dir, 'qmp.sock'))).toBe(false);
  });
});
