import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readVmMemory } from '../../src/vm/memory.ts';
import { connectNetwork, type VmNetwork } from '../../src/vm/network/connect.ts';
import { type ImageType, makeImage } from '../../src/vm/storage/image.ts';
import { type Cable, layCable } from '../support/cable.ts';
import { bootGuest, type Guest, guestImages } from '../support/guest.ts';

const exec = promisify(execFile);
const MIB = 1n << 20n;

let dir: string;
let cable: Cable;
let network: VmNetwork | undefined;
let guest: Guest;

/** One machine for all tests, its pod's network namespace joined to another by a cable. */
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-vmdev-'));
  cable = await layCable(path.basename(dir));
  const netns = `/run/netns/${cable.pod}`;
  network = await connectNetwork({ netns, model: 'tcfilter', dir }, soon());
  guest = await bootGuest({ netns, nics: network.nics, maxVcpus: 2, maxMemoryBytes: 512n * MIB });
  await guest.client.call('configure', {
    hostname: 'guest',
    dns: { servers: [], searches: [], options: [] },
    interfaces: network.interfaces,
    sysctls: {},
    time: Date.now(),
    shares: [{ tag: 'berth', path: '/run/berth/shared' }],
  });
}, 300_000);

afterAll(async () => {
  await guest?.close();
  await network?.close();
  await cable?.close();
  await rm(dir, { recursive: true, force: true });
});

const soon = () => AbortSignal.timeout(60_000);

describe('a machine with devices', () => {
  it.each(['10.7.0.2', 'fd07::2'])(
    'answers at the address of its pod, %s, frames of any size',
    async (to) => {
      const { stdout } = await exec('ip', [
        ...['netns', 'exec', cable.peer, 'busybox', 'ping', '-c3', '-W5', '-s1300', to],
      ]);
      expect(stdout).toMatch(/3 packets received, 0% packet loss/);
    },
  );

  it.each<ImageType>(['erofs', 'ext4'])(
    'takes a disk with an image of a directory, %s, and gives it back',
    async (type) => {
      const [source, target] = [path.join(dir, `source-${type}`), path.join(dir, `${type}.img`)];
      await mkdir(path.join(source, 'inner'), { recursive: true });
      await writeFile(path.join(source, 'inner/file'), 'content');
      await makeImage({ type, source, target, freeBytes: 8n * MIB }, soon());
      const device = await guest.vm.addDisk(
        { id: `disk-${type}`, path: target, format: 'raw', readOnly: type === 'erofs' },
        soon(),
      );
      const at = `/run/${type}`;
      const options = type === 'erofs' ? ['ro'] : [];
      await guest.client.call('mounts', { add: [{ source: device, type, target: at, options }] });
      // A bind mount needs its source: so the guest has what was in the directory.
      const inner = { source: `${at}/inner`, type: 'bind', target: `${at}-inner`, options: ['bind'] };
      await guest.client.call('mounts', { add: [inner] });
      for (const mounted of [inner.target, at]) await guest.client.call('unmount', { target: mounted });
      await guest.vm.removeDisk(`disk-${type}`, soon());
      await guest.vm.removeDisk(`disk-${type}`, soon());
    },
  );

  it('grows and shrinks while it runs', async () => {
    const before = await guest.client.call('online', {});
    expect(before.cpus).toBe(1);
    const size = await guest.vm.resize({ vcpus: 2, memoryBytes: 448n * MIB }, soon());
    expect(size).toEqual({ vcpus: 2, memoryBytes: 448n * MIB });
    const after = await guest.client.call('online', {});
    expect(after.cpus).toBe(2);
    expect(BigInt(after.memoryBytes) - BigInt(before.memoryBytes)).toBe(128n * MIB);
    expect((await guest.vm.resize({ memoryBytes: 320n * MIB }, soon())).memoryBytes).toBe(320n * MIB);
  });

  it('takes memory that is accounted for', async () => {
    const memory = await readVmMemory([guest.vm.process.pid], guestImages());
    expect(memory.guest).toBeGreaterThan(32n * MIB);
    expect(memory.guest).toBeLessThan(320n * MIB);
    expect(memory.image).toBeGreaterThan(4n * MIB);
    expect(memory.hypervisor).toBeGreaterThan(16n * MIB);
    expect(memory.total).toBe(memory.guest + memory.image + memory.hypervisor);
  });
});
