import { describe, expect, it } from 'vitest';
import { parseResult, podIps } from '../../../src/network/result.ts';

const host = { name: 'veth1', mac: '02:00:00:00:00:01' };
const eth0 = { name: 'eth0', sandbox: '/run/netns/pod' };
const net1 = { name: 'net1', sandbox: '/run/netns/pod' };
const ip = (address: string, index?: number) => ({
  address,
  ...(index !== undefined && { interface: index }),
});

describe('podIps', () => {
  it.each([
    ['by index', { interfaces: [host, eth0], ips: [ip('10.1.0.2/24', 1)] }, ['10.1.0.2']],
    ['without interfaces', { ips: [ip('10.1.0.2/24')] }, ['10.1.0.2']],
    [
      'not on the host’s side',
      { interfaces: [host, eth0], ips: [ip('10.1.0.1/24', 0), ip('10.1.0.2/24', 1)] },
      ['10.1.0.2'],
    ],
    [
      'not on a second interface',
      { interfaces: [net1, eth0], ips: [ip('10.9.0.2/24', 0), ip('10.1.0.2/24', 1)] },
      ['10.1.0.2'],
    ],
    [
      'on the only interface of another name',
      { interfaces: [host, net1], ips: [ip('10.9.0.2/24', 1)] },
      ['10.9.0.2'],
    ],
    ['without a sandbox named', { interfaces: [host], ips: [ip('10.1.0.2/32', 0)] }, ['10.1.0.2']],
    ['IPv6 first', { ips: [ip('fd00::2/64'), ip('10.1.0.2/24')] }, ['fd00::2', '10.1.0.2']],
    [
      'one of each family first',
      { ips: [ip('10.1.0.2/24'), ip('10.1.0.3/24'), ip('fd00::2/64'), ip('fd00::3/64')] },
      ['10.1.0.2', 'fd00::2', '10.1.0.3', 'fd00::3'],
    ],
    ['once', { ips: [ip('10.1.0.2/24'), ip('10.1.0.2/24')] }, ['10.1.0.2']],
  ])('finds the pod’s addresses: %s', (_, result, ips) => {
    expect(podIps(result, 'eth0')).toEqual(ips);
  });

  it.each([
    [{}, /no IP address/],
    [{ ips: [] }, /no IP address/],
    [{ ips: 'all' }, /"ips" that is no list/],
    [{ ips: [7] }, /"ips" that is no list/],
    [{ ips: [{}] }, /ips\[0\] without a valid address/],
    [{ ips: [ip('10.1.0.2')] }, /ips\[0\]/],
    [{ ips: [ip('10.1.0.2/33')] }, /ips\[0\]/],
    [{ ips: [ip('300.1.0.2/24')] }, /ips\[0\]/],
    [{ ips: [ip('fe80::1%eth0/64')] }, /ips\[0\]/],
    [{ ips: [ip('10.1.0.2/24\n')] }, /ips\[0\]/],
    [{ interfaces: [eth0], ips: [ip('10.1.0.2/24', 1)] }, /not in its list/],
    [{ interfaces: [eth0], ips: [{ ...ip('10.1.0.2/24'), interface: '0' }] }, /not in its list/],
    [{ ips: Array(1025).fill(ip('10.1.0.2/24')) }, /more than 1024/],
  ])('refuses what is none: %j', (result, message) => {
    expect(() => podIps(result, 'eth0')).toThrow(message);
  });
});

describe('parseResult', () => {
  it('keeps what it does not know, and fills in the version', () => {
    expect(parseResult('{"ips":[],"vendor":{"a":1}}', '1.0.0')).toEqual({
      cniVersion: '1.0.0',
      ips: [],
      vendor: { a: 1 },
    });
  });

  it('gives addresses the family that versions before 1.0.0 want', () => {
    const answer = JSON.stringify({ cniVersion: '1.0.0', ips: [ip('10.1.0.2/24'), ip('fd00::2/64')] });
    expect(parseResult(answer, '0.4.0')).toEqual({
      cniVersion: '0.4.0',
      ips: [
        { address: '10.1.0.2/24', version: '4' },
        { address: 'fd00::2/64', version: '6' },
      ],
    });
  });

  it('drops the family for 1.0.0 and newer', () => {
    const answer = JSON.stringify({ cniVersion: '0.4.0', ips: [{ version: '4', address: '10.1.0.2/24' }] });
    expect(parseResult(answer, '1.1.0')).toEqual({ cniVersion: '1.1.0', ips: [{ address: '10.1.0.2/24' }] });
  });

  it('shows what was answered instead of JSON, on one bounded line', () => {
    expect(() => parseResult(`oops\n\u001b[31m${'x'.repeat(5000)}`, '1.0.0')).toThrow(
      /^answered what is not JSON: oops \[31mx{400,520}…$/,
    );
  });
});
