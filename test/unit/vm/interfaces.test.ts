import { describe, expect, it } from 'vitest';
import { type IpOutput, parseInterfaces } from '../../../src/vm/network/interfaces.ts';

/** As iproute2 6.1 writes it, less what is not read. */
const OUTPUT: IpOutput = {
  addresses: JSON.stringify([
    { ifname: 'lo', flags: ['LOOPBACK', 'UP'], mtu: 65536, link_type: 'loopback', addr_info: [] },
    { ifname: 'sit0', flags: ['NOARP'], mtu: 1480, link_type: 'sit', address: '0.0.0.0', addr_info: [] },
    {
      ifindex: 3,
      link_index: 7,
      ifname: 'eth0',
      flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
      mtu: 1450,
      link_type: 'ether',
      address: '3a:b8:7c:a9:e7:27',
      link_netnsid: 0,
      addr_info: [
        { family: 'inet', local: '10.1.0.2', prefixlen: 24, scope: 'global', label: 'eth0' },
        { family: 'inet6', local: 'fd00::2', prefixlen: 64, scope: 'global', nodad: true },
        { family: 'inet6', local: 'fe80::38b8:7cff:fea9:e727', prefixlen: 64, scope: 'link' },
      ],
    },
    {
      ifname: 'net1',
      flags: ['BROADCAST', 'UP'],
      mtu: 1500,
      link_type: 'ether',
      address: '02:00:00:00:00:09',
      addr_info: [],
    },
    { ifname: 'erspan0', flags: ['BROADCAST'], mtu: 1450, link_type: 'ether', address: '0', addr_info: [] },
  ]),
  routes4: JSON.stringify([
    { dst: 'default', gateway: '169.254.1.1', dev: 'eth0', flags: [] },
    { dst: '10.1.0.0/24', dev: 'eth0', protocol: 'kernel', scope: 'link', prefsrc: '10.1.0.2', flags: [] },
    { dst: '169.254.1.1', dev: 'eth0', scope: 'link', flags: [] },
    { type: 'blackhole', dst: '10.9.0.0/16', flags: [] },
    { dst: '10.8.0.0/16', dev: 'net1', scope: 'link', metric: 50, flags: [] },
  ]),
  routes6: JSON.stringify([
    { dst: 'fe80::/64', dev: 'eth0', protocol: 'kernel', metric: 256, flags: [], pref: 'medium' },
    { dst: 'default', gateway: 'fd00::1', dev: 'eth0', metric: 1024, flags: [], pref: 'medium' },
  ]),
  neighbours: JSON.stringify([
    { dst: '169.254.1.1', dev: 'eth0', lladdr: 'ee:ee:ee:ee:ee:ee', state: ['PERMANENT'] },
  ]),
};

describe('the interfaces of a pod', () => {
  it('are those that CNI made, with what the guest does not find out by itself', () => {
    expect(parseInterfaces(OUTPUT)).toEqual([
      {
        name: 'eth0',
        mac: '3a:b8:7c:a9:e7:27',
        mtu: 1450,
        addresses: ['10.1.0.2/24', 'fd00::2/64'],
        routes: [
          { dst: '169.254.1.1/32', scope: 'link' },
          { dst: '0.0.0.0/0', gateway: '169.254.1.1' },
          { dst: '::/0', gateway: 'fd00::1', metric: 1024 },
        ],
        neighbours: [{ address: '169.254.1.1', mac: 'ee:ee:ee:ee:ee:ee' }],
      },
      {
        name: 'net1',
        mac: '02:00:00:00:00:09',
        mtu: 1500,
        addresses: [],
        routes: [{ dst: '10.8.0.0/16', scope: 'link', metric: 50 }],
        neighbours: [],
      },
    ]);
  });

  it('are none where iproute2 says nothing', () => {
    expect(parseInterfaces({ addresses: '[]\n', routes4: '', routes6: '', neighbours: '' })).toEqual([]);
  });

  it('are not guessed from something else', () => {
    expect(() => parseInterfaces({ ...OUTPUT, routes4: '[{"dev":"eth0"}]' })).toThrow('ip -json route');
  });
});
