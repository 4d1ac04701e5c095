import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { removeLink } from '../support/host.ts';
import { Pods, refusal, sh, until } from '../support/pods.ts';

const run = promisify(execFile);
let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** Another network with a bridge of its own, which comes before the usual one. */
async function useNetwork(ranges: object[][], ...more: object[]): Promise<{ stop(): Promise<void> }> {
  const file = path.join(berthd.dir, 'net.d', '00-other.conflist');
  const bridge = `bu${berthd.tag}`;
  const ipam = { type: 'host-local', dataDir: path.join(berthd.dir, 'ipam'), ranges };
  const plugins = [{ type: 'bridge', bridge, isGateway: true, ipam }, ...more];
  await writeFile(file, JSON.stringify({ cniVersion: '1.0.0', name: `other-${berthd.tag}`, plugins }));
  return {
    stop: async () => {
      await rm(file);
      expect(await berthd.removeAllPods()).toEqual([]);
      expect(await readdir(`/sys/class/net/${bridge}/brif`)).toEqual([]);
      await removeLink(bridge);
    },
  };
}

const otherSubnet = () => `10.63.${Number.parseInt(berthd.tag.slice(0, 2), 16)}.0/24`;

describe('network', () => {
  it('an address of the configured range, with which pods reach each other', async () => {
    const [pod, other] = [await pods.run(), await pods.run()];
    const ip = (await pods.podStatus(pod)).network?.ip ?? '';
    const id = await pods.start(pod, sh('while :; do echo "from $HOSTNAME" | nc -l -p 8080; done'));
    expect(await pods.ask(id, "ip -4 -o addr show eth0 | awk '{print $4}'")).toBe(`${ip}/24`);
    const client = await pods.start(other);
    await until('the other pod answers', async () => {
      const said = await pods.exec(client, ['nc', '-w', '2', ip, '8080']);
      return said.stdout === `from ${pod.config.hostname}\n`;
    });
  });

  it('IPv4 first and IPv6 as additional address, as the plugin says', async () => {
    const six = `fd00:${berthd.tag.slice(0, 4)}:${berthd.tag.slice(4)}::/64`;
    const network = await useNetwork([[{ subnet: otherSubnet() }], [{ subnet: six }]]);
    try {
      const pod = await pods.run();
      const said = (await pods.podStatus(pod)).network;
      expect(said?.ip).toMatch(/^10\.63\.\d+\.\d+$/);
      expect(said?.additional_ips).toEqual([{ ip: expect.stringMatching(/^fd00:/) }]);
      const id = await pods.start(pod);
      const addresses = await pods.ask(id, "ip -o addr show eth0 scope global | awk '{print $4}'");
      expect(addresses.split('\n').sort()).toEqual([`${said?.ip}/24`, `${said?.additional_ips[0]?.ip}/64`]);
      expect(await pods.ask(id, 'cat /etc/hosts')).toContain(
        `${said?.additional_ips[0]?.ip}\t${pod.config.hostname}`,
      );
    } finally {
      await network.stop();
    }
  });

  it('port mappings reach the pod through portmap, and leave no rule behind', async () => {
    const hostPort = await freePort();
    const network = await useNetwork([[{ subnet: otherSubnet() }]], {
      type: 'portmap',
      capabilities: { portMappings: true },
    });
    try {
      const pod = await pods.run({
        port_mappings: [
          { protocol: 'TCP', container_port: 8080, host_port: hostPort },
          { protocol: 'TCP', container_port: 9090 },
        ],
      });
      await pods.start(pod, sh('while :; do echo mapped | nc -l -p 8080; done'));
      const ip = (await pods.podStatus(pod)).network?.ip;
      expect(await natRules()).toContain(`--to-destination ${ip}:8080`);
      expect(await natRules()).not.toContain(`${ip}:9090`);
      expect(
        await until('the mapped port answers', async () => {
          const socket = connect(hostPort, '127.0.0.1');
          socket.setTimeout(2_000, () => socket.destroy());
          return buffer(socket).then(String, () => '');
        }),
      ).toBe('mapped\n');
      await pods.stopPod(pod);
      expect(await natRules()).not.toContain(`${ip}:8080`);
      expect(await natRules()).not.toContain(pod.id.slice(0, 12));
    } finally {
      await network.stop();
    }
  });

  it('is not ready, with a message that names the directory, until a configuration is dropped in', async () => {
    const bare = await Berthd.start({ network: false });
    try {
      const ready = async () => {
        const { status } = await bare.client.runtime('Status', {});
        return status?.conditions.find(({ type }) => type === 'NetworkReady');
      };
      expect(await ready()).toEqual({
        type: 'NetworkReady',
        status: false,
        reason: 'NetworkPluginNotReady',
        message: expect.stringContaining(path.join(bare.dir, 'net.d')),
      });
      const request = { config: { ...new Pods(bare).config() } };
      const said = await refusal(bare.client.runtime('RunPodSandbox', request));
      expect(said.kind).toBe('unavailable');
      expect(said.message).toContain(path.join(bare.dir, 'net.d'));
      expect((await bare.client.runtime('ListPodSandbox', {})).items).toEqual([]);
      // The node's network needs no configuration.
      const options = { network: 'NODE' } as const;
      const own = await new Pods(bare).run({
        linux: { cgroup_parent: bare.cgroupParent, security_context: { namespace_options: options } },
      });
      expect((await new Pods(bare).podStatus(own)).state).toBe('SANDBOX_READY');
      await bare.addNetwork();
      await until('the network is ready', async () => (await ready())?.status);
      // The refused request is taken now, under its own name.
      const { pod_sandbox_id } = await bare.client.runtime('RunPodSandbox', request);
      expect((await new Pods(bare).podStatus(pod_sandbox_id)).network?.ip).toMatch(/^10\./);
    } finally {
      expect(await bare.close()).toEqual([]);
    }
  });

  it('tells the plugins at start which pods are still attached', async () => {
    const told = path.join(berthd.dir, 'gc.json');
    const binDir = path.join(berthd.dir, 'cni-bin');
    await mkdir(binDir);
    await writeFile(
      path.join(binDir, 'recorder'),
      `#!/bin/sh\n[ $CNI_COMMAND != GC ] || cat >'${told}'\necho '{"cniVersion":"1.1.0","ips":[{"address":"10.63.251.2/24"}]}'\n`,
      { mode: 0o755 },
    );
    const other = await Berthd.start({ network: false, binDirs: [binDir] });
    try {
      const network = { cniVersion: '1.1.0', name: 'recorded', plugins: [{ type: 'recorder' }] };
      await writeFile(path.join(other.dir, 'net.d', '10-recorded.conflist'), JSON.stringify(network));
      const pod = await new Pods(other).run();
      await other.stop('SIGKILL');
      await other.start();
      const valid = await until('GC was run', async () => {
        const said = await readFile(told, 'utf8').catch(() => '');
        return said.includes(pod.id) && JSON.parse(said)['cni.dev/valid-attachments'];
      });
      expect(valid).toEqual([{ containerID: pod.id, ifname: 'eth0' }]);
    } finally {
      expect(await other.close()).toEqual([]);
    }
  });

  it('that cannot be made fails the pod with the plugin’s words, and leaves nothing', async () => {
    const network = await useNetwork([
      [{ subnet: '10.63.250.0/30', rangeStart: '10.63.250.2', rangeEnd: '10.63.250.2' }],
    ]);
    try {
      const pod = await pods.run();
      const said = await refusal(pods.run());
      expect(said.message).toMatch(/^network: .*(no IP addresses available|available in range)/);
      await pods.removePod(pod);
      // The address that it held is free again.
      expect((await pods.podStatus(await pods.run())).network?.ip).toBe('10.63.250.2');
    } finally {
      await network.stop();
    }
  });
});

async function natRules(): Promise<string> {
  return (await run('iptables-save', ['-t', 'nat'])).stdout;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
