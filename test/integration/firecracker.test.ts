import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isAlive } from '../../src/sys/process-identity.ts';
import { Firecracker } from '../../src/vm/hypervisor/firecracker/firecracker.ts';
import type { Vm, VmConfig } from '../../src/vm/types.ts';

const STAND_IN = path.resolve(import.meta.dirname, '../support/firecracker.ts');
const MIB = 1n << 20n;

let dir: string;
let vm: Vm | undefined;

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-fc-'));
  vm = undefined;
  for (const name of ['root.img', 'layer.img', 'data.img', 'initrd']) {
    await writeFile(path.join(dir, name), Buffer.alloc(4096));
  }
  await writeFile(path.join(dir, 'vmlinux'), '\x7fELF…');
});

afterEach(async () => {
  await vm?.stop(soon());
  await rm(dir, { recursive: true });
});

const soon = () => AbortSignal.timeout(20_000);
const file = (name: string) => path.join(dir, name);

async function start(changes: Partial<VmConfig> = {}, environment = ''): Promise<Vm> {
  const program = file('firecracker');
  await writeFile(program, `#!/bin/sh\n${environment} exec '${process.execPath}' '${STAND_IN}' "$@"\n`);
  await chmod(program, 0o755);
  vm = await new Firecracker(program).start(
    {
      id: '0123456789abcdef'.repeat(4),
      dir,
      netns: undefined,
      cgroups: [],
      vcpus: 2,
      maxVcpus: 2,
      memoryBytes: 256n * MIB,
      maxMemoryBytes: 256n * MIB,
      boot: {
        kernel: file('vmlinux'),
        initrd: file('initrd'),
        rootfs: file('root.img'),
        rootfsType: 'erofs',
        kernelArgs: ['quiet'],
      },
      kernelArgs: [],
      channel: 'vsock',
      nics: [{ name: 'eth0', mac: '0a:58:0a:00:00:02', mtu: 1500, tap: { kind: 'tap', device: 'tap0' } }],
      disks: [{ id: 'ctr-1', path: file('data.img'), format: 'raw', readOnly: false }],
      shares: [],
      ...changes,
    },
    soon(),
  );
  return vm;
}

async function calls(): Promise<{ method: string; path: string; body: Record<string, unknown> }[]> {
  const lines = (await readFile(file('calls'), 'utf8')).trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line));
}

describe('Firecracker', () => {
  it('is told of every device before the start, the root device first of the drives', async () => {
    await start();
    const empty = { is_root_device: false, path_on_host: file('empty.img') };
    expect(await calls()).toEqual(
      [
        ['/machine-config', { vcpu_count: 2, mem_size_mib: 256, smt: false }],
        [
          '/boot-source',
          {
            kernel_image_path: file('vmlinux'),
            initrd_path: file('initrd'),
            boot_args:
              'quiet reboot=k panic=-1 8250.nr_uarts=0 root=/dev/vda ro rootfstype=erofs berth.channel=vsock',
          },
        ],
        [
          '/drives/root',
          { drive_id: 'root', path_on_host: file('root.img'), is_root_device: true, is_read_only: true },
        ],
        [
          '/drives/disk0',
          { drive_id: 'disk0', path_on_host: file('data.img'), is_root_device: false, is_read_only: false },
        ],
        ...Array.from({ length: 8 }, (_, index) => [
          `/drives/place${index}`,
          { ...empty, drive_id: `place${index}`, is_read_only: index < 4 },
        ]),
        [
          '/network-interfaces/net0',
          { iface_id: 'net0', host_dev_name: 'tap0', guest_mac: '0a:58:0a:00:00:02' },
        ],
        ['/vsock', { guest_cid: 3, uds_path: file('vsock.sock') }],
        ['/entropy', {}],
        ['/balloon', { amount_mib: 0, deflate_on_oom: true }],
        ['/actions', { action_type: 'InstanceStart' }],
      ].map(([at, body]) => ({ method: 'PUT', path: at, body })),
    );
  });

  it("connects to the agent's port when it listens, and loses nothing of what it says first", async () => {
    const stream = await (await start()).connectAgent(soon());
    stream.end('world');
    expect(await text(stream)).toBe('hello world');
  });

  it('shows disks that come later in places of their kind, and clears them', async () => {
    const machine = await start();
    const layer = { path: file('layer.img'), format: 'raw' as const, readOnly: true };
    expect(await machine.addDisk({ ...layer, id: 'a' }, soon())).toBe('/dev/vdc');
    expect(await machine.addDisk({ ...layer, id: 'b' }, soon())).toBe('/dev/vdd');
    expect(await machine.addDisk({ ...layer, id: 'w', readOnly: false }, soon())).toBe('/dev/vdg');
    await expect(machine.addDisk({ ...layer, id: 'a' }, soon())).rejects.toMatchObject({
      kind: 'alreadyExists',
    });
    await machine.removeDisk('a', soon());
    await machine.removeDisk('a', soon());
    expect(await machine.addDisk({ ...layer, id: 'c' }, soon())).toBe('/dev/vdc');
    expect((await calls()).filter(({ method }) => method === 'PATCH').map(({ body }) => body)).toEqual(
      [
        ['place0', 'layer.img'],
        ['place1', 'layer.img'],
        ['place4', 'layer.img'],
        ['place0', 'empty.img'],
        ['place0', 'layer.img'],
      ].map(([id = '', name = '']) => ({ drive_id: id, path_on_host: file(name) })),
    );
    await machine.addDisk({ ...layer, id: 'd' }, soon());
    await machine.addDisk({ ...layer, id: 'e' }, soon());
    await expect(machine.addDisk({ ...layer, id: 'f' }, soon())).rejects.toMatchObject({ kind: 'exhausted' });
  });

  it("leaves nothing when a call is refused, and passes on Firecracker's fault", async () => {
    const disks = [{ id: 'x', path: file('none.img'), format: 'raw' as const, readOnly: true }];
    await expect(start({ disks })).rejects.toThrow(
      'Firecracker: PUT /drives/disk0: 400: Unable to open the block device.',
    );
    await expect(start({}, "FIRECRACKER_FAILS='no KVM here'")).rejects.toThrow(
      'Firecracker did not start: no KVM here',
    );
  });

  it('is noticed when it ends, and says what it was', async () => {
    const machine = await start();
    process.kill(machine.process.pid, 'SIGKILL');
    expect(await machine.ended).toEqual({
      code: null,
      signal: 'SIGKILL',
      reason: 'Firecracker: killed by SIGKILL',
    });
    expect(isAlive(machine.process)).toBe(false);
    await expect(machine.connectAgent(soon())).rejects.toMatchObject({ kind: 'unavailable' });
    await machine.stop(soon());
  });

  it('refuses before the start what it cannot be', async () => {
    await expect(start({ shares: [{ tag: 't', socket: 's' }] })).rejects.toMatchObject({
      kind: 'unimplemented',
      message: expect.stringContaining('no shared file system'),
    });
    await expect(start({ channel: 'virtio-serial' })).rejects.toThrow('it has vsock alone');
    await writeFile(file('vmlinux'), 'bzImage');
    await expect(start()).rejects.toThrow('boots an uncompressed kernel');
  });
});
