import { describe, expect, it } from 'vitest';
import { newAttachment, type PodNetworkRequest } from '../../../src/network/attachment.ts';
import { capabilityArgs } from '../../../src/network/capabilities.ts';
import { parseConf } from '../../../src/network/conf.ts';
import { pluginEnv, pluginStdin } from '../../../src/network/plugin.ts';
import type { PortMapping } from '../../../src/sandbox/config.ts';

const port = (more: Partial<PortMapping> = {}): PortMapping => ({
  protocol: 'TCP',
  containerPort: 80,
  hostPort: 8080,
  hostIp: '',
  ...more,
});
const sources = (more: object = {}) => ({ portMappings: [], annotations: {}, cgroupPath: '', ...more });
const request = (metadata: Partial<PodNetworkRequest['metadata']> = {}): PodNetworkRequest => ({
  ...sources(),
  sandboxId: 'ab'.repeat(32),
  netnsPath: '/run/netns/pod',
  metadata: { name: 'web', namespace: 'default', uid: '', ...metadata },
});
const network = parseConf(
  JSON.stringify({
    name: 'net',
    cniVersion: '1.0.0',
    plugins: [{ type: 'a', capabilities: { dns: true, mac: true } }],
  }),
  true,
);

describe('port mappings', () => {
  it('passes on only ports that are published', () => {
    const portMappings = [port({ hostPort: 0 }), port({ protocol: 'UDP', hostIp: '::1' }), port()];
    expect(capabilityArgs(sources({ portMappings })).portMappings).toEqual([
      { hostPort: 8080, containerPort: 80, protocol: 'udp', hostIP: '::1' },
      { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
    ]);
    expect(capabilityArgs(sources({ portMappings: [port({ hostPort: 0 })] }))).not.toHaveProperty(
      'portMappings',
    );
  });

  it.each([
    [port({ hostPort: -1 }), 'config.port_mappings[1].host_port: -1'],
    [port({ hostPort: 65536 }), 'config.port_mappings[1].host_port: 65536'],
    [port({ containerPort: 0 }), 'config.port_mappings[1].container_port: 0'],
    [port({ containerPort: 70000 }), 'config.port_mappings[1].container_port: 70000'],
    [port({ hostIp: 'localhost' }), 'config.port_mappings[1].host_ip: is not an IP address'],
  ])('refuses %j', (wrong, message) => {
    expect(() => capabilityArgs(sources({ portMappings: [port(), wrong] }))).toThrow(message);
  });
});

describe('bandwidth', () => {
  const bandwidth = (ingress: string) =>
    capabilityArgs(sources({ annotations: { 'kubernetes.io/ingress-bandwidth': ingress } })).bandwidth;

  it.each([
    ['10M', 10_000_000],
    ['1k', 1_000],
    ['1.5G', 1_500_000_000],
    ['1Mi', 1_048_576],
    ['2e6', 2_000_000],
    ['1P', 1e15],
    ['5000', 5_000],
  ])('reads the quantity %s', (text, rate) => {
    expect(bandwidth(text)).toEqual({ ingressRate: rate, ingressBurst: 2 ** 32 - 1 });
  });

  it.each(['', '10 M', 'fast', '10Q', '999', '2P', '-10M', '0x10', '1e99'])('refuses %j', (text) => {
    expect(() => bandwidth(text)).toThrow('config.annotations["kubernetes.io/ingress-bandwidth"]');
  });

  it('limits each direction by itself', () => {
    const annotations = { 'kubernetes.io/egress-bandwidth': '1M' };
    expect(capabilityArgs(sources({ annotations })).bandwidth).toEqual({
      egressRate: 1_000_000,
      egressBurst: 2 ** 32 - 1,
    });
    expect(capabilityArgs(sources())).not.toHaveProperty('bandwidth');
  });
});

describe('the stdin and environment of a plugin', () => {
  const [plugin] = network.plugins;
  if (plugin === undefined) throw new Error('the fixture has a plugin');

  it('has the capabilities that it declares and the runtime knows', () => {
    const args = { dns: { servers: ['1.1.1.1'] }, portMappings: [] };
    expect(JSON.parse(pluginStdin(network, plugin, { prevResult: { ips: [] } }, args))).toEqual({
      type: 'a',
      capabilities: { dns: true, mac: true },
      name: 'net',
      cniVersion: '1.0.0',
      prevResult: { ips: [] },
      runtimeConfig: { dns: { servers: ['1.1.1.1'] } },
    });
    expect(JSON.parse(pluginStdin(network, plugin, {}, {}))).not.toHaveProperty('runtimeConfig');
  });

  it('finds tools in sbin whatever PATH the daemon has', () => {
    const target = { containerId: 'c', netns: '', ifName: 'eth0', args: 'A=1' };
    const env = pluginEnv('DEL', target, { binDirs: ['/a', '/b'], env: { PATH: '/usr/bin', HOME: '/root' } });
    expect(env).toEqual({
      PATH: expect.stringMatching(/^\/usr\/bin:.*\/usr\/sbin/),
      HOME: '/root',
      BERTH_OBJECT: 'c',
      CNI_COMMAND: 'DEL',
      CNI_CONTAINERID: 'c',
      CNI_NETNS: '',
      CNI_IFNAME: 'eth0',
      CNI_ARGS: 'A=1',
      CNI_PATH: '/a:/b',
    });
  });
});

describe('newAttachment', () => {
  it('is plain JSON', () => {
    const attachment = newAttachment(request(), network, 'eth0');
    expect(JSON.parse(JSON.stringify(attachment))).toEqual(attachment);
  });

  it.each([
    ['name', 'a;K8S_POD_NAMESPACE=kube-system'],
    ['namespace', 'a=b'],
    ['uid', 'a\0b'],
  ])('refuses a %s that would change CNI_ARGS', (key, value) => {
    expect(() => newAttachment(request({ [key]: value }), network, 'eth0')).toThrow(
      `config.metadata.${key}: must not`,
    );
  });
});
