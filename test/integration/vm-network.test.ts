import { execFile } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectNetwork, type NetworkModel, type VmNetwork } from '../../src/vm/network/connect.ts';
import { type Cable, layCable } from '../support/cable.ts';

const exec = promisify(execFile);

let dir: string;
let cable: Cable;
/** Names of its network namespaces. */
let pod: string;
let peer: string;
let network: VmNetwork | undefined;

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-vmnet-'));
  network = undefined;
  cable = await layCable(path.basename(dir));
  ({ pod, peer } = cable);
});

afterEach(async () => {
  await network?.close();
  await cable.close();
  await rm(dir, { recursive: true });
});

const netns = () => `/run/netns/${pod}`;
const soon = () => AbortSignal.timeout(10_000);

async function ip(name: string, args: string): Promise<string> {
  return (await exec('ip', ['-n', name, ...args.split(' ')])).stdout;
}

async function connect(model: NetworkModel): Promise<VmNetwork> {
  network = await connectNetwork({ netns: netns(), model, dir }, soon());
  return network;
}

/** All that can be seen of the pod's namespace, so that what is left behind shows. */
async function state(): Promise<unknown> {
  const links = JSON.parse(await ip(pod, '-json -details address show'));
  const { stdout: qdiscs } = await exec('tc', ['-n', pod, 'qdisc', 'show']);
  return {
    qdiscs,
    links: links.map((link: Record<string, unknown>) => ({
      name: link.ifname,
      mac: link.address,
      flags: link.flags,
      mtu: link.mtu,
      promiscuity: link.promiscuity,
      addresses: (link.addr_info as { local: string; prefixlen: number }[]).map(
        ({ local, prefixlen }) => `${local}/${prefixlen}`,
      ),
    })),
  };
}

/** Whether the peer gets an answer from the pod's address. */
async function answers(address: string): Promise<boolean> {
  await ip(peer, 'neighbour flush dev eth0');
  return exec('ip', ['netns', 'exec', peer, 'busybox', 'ping', '-c1', '-W1', address]).then(
    () => true,
    () => false,
  );
}

describe.each<NetworkModel>(['tcfilter', 'macvtap'])('the network of a pod, by %s', (model) => {
  it('is read as it is, and handed over', async () => {
    const mac = JSON.parse(await ip(pod, '-json link show eth0'))[0].address;
    const { nics, interfaces } = await connect(model);
    expect(interfaces).toEqual([
      {
        name: 'eth0',
        mac,
        mtu: 1400,
        addresses: ['10.7.0.2/24', 'fd07::2/64'],
        routes: [{ dst: '0.0.0.0/0', gateway: '10.7.0.1' }],
        neighbours: [],
      },
    ]);
    const device = 'berth_tap0';
    expect(nics).toEqual([
      {
        name: 'eth0',
        mac,
        mtu: 1400,
        tap:
          model === 'tcfilter'
            ? { kind: 'tap', device }
            : { kind: 'macvtap', device, node: path.join(dir, 'tap0') },
      },
    ]);
    const tap = JSON.parse(await ip(pod, `-json link show ${device}`))[0];
    expect(tap).toMatchObject({ mtu: 1400, flags: expect.arrayContaining(['UP']) });
    if (model === 'macvtap') expect(tap.address).toBe(mac);
  });

  it('no longer answers itself', async () => {
    const both = () => Promise.all(['10.7.0.2', 'fd07::2'].map(answers));
    expect(await both()).toEqual([true, true]);
    await connect(model);
    expect(await both()).toEqual([false, false]);
  });

  it('is as it was after the end, and the end is repeatable', async () => {
    const before = await state();
    const { close } = await connect(model);
    expect(await state()).not.toEqual(before);
    await close();
    await close();
    await expect.poll(state).toEqual(before);
    expect(existsSync(path.join(dir, 'tap0'))).toBe(false);
    expect(await answers('fd07::2')).toBe(true);
  });

  it('leaves nothing when it cannot be made', async () => {
    const before = await state();
    await ip(pod, 'link add berth_tap0 type bridge');
    await expect(connect(model)).rejects.toThrow();
    await ip(pod, 'link del berth_tap0');
    await expect.poll(state).toEqual(before);
  });

  it('takes a namespace or a device that is gone for an end', async () => {
    const { close } = await connect(model);
    await ip(pod, 'link del eth0');
    await close();
    const gone = { netns: `/run/netns/${pod}-none`, model, dir };
    await expect(connectNetwork(gone, soon())).rejects.toThrow();
  });
});

describe('the device node of a macvtap', () => {
  it("is that of the pod's, whatever has the same index elsewhere", async () => {
    const { nics } = await connect('macvtap');
    const [nic] = nics;
    if (nic?.tap.kind !== 'macvtap') throw new Error('no macvtap');
    const listed = await exec('ip', ['netns', 'exec', pod, 'sh', '-c', 'cat /sys/class/macvtap/tap*/dev']);
    const { rdev } = statSync(nic.tap.node);
    expect(`${rdev >> 8}:${rdev & 0xff}\n`).toBe(listed.stdout);
  });
});
