import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NetworkModel } from '../../src/vm/network/connect.ts';
import { Berthd } from '../support/berthd.ts';
import { testGuestImage } from '../support/guest.ts';
import { type Pod, Pods, sh, until } from '../support/pods.ts';
import { forwardOverSpdy } from '../support/port-forward.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';

const exec = promisify(execFile);
const MIB = 1 << 20;
const MODELS: readonly NetworkModel[] = ['tcfilter', 'macvtap'];
const DNS = { servers: ['192.0.2.53', '2001:db8::53'], searches: ['a.test'], options: ['ndots:3'] };
const SYSCTLS = { 'net.ipv4.ip_unprivileged_port_start': '81', 'kernel.shm_rmid_forced': '1' };
const LIMITS = { cpu_quota: 50_000, cpu_period: 100_000, memory_limit_in_bytes: 48 * MIB };

/** A pod with a container that serves a file of 2 MiB on all addresses, and `local` on the loopback. */
interface Served extends Pod {
  container: string;
  /** Of IPv4, and of IPv6. */
  ips: readonly string[];
}

let berthd: Berthd;
let pods: Pods;
let runc: Served;
const vms = new Map<NetworkModel, Served>();

/** One daemon and one machine for each model; a pod keeps the model that it was made with. */
beforeAll(async () => {
  await testGuestImage();
  berthd = await Berthd.start({ network: false, tables: vmTables(undefined, 'network = "tcfilter"') });
  pods = new Pods(berthd);
  await writeDualStack();
  await berthd.importBusybox();
  runc = await serve('runc');
  vms.set('tcfilter', await serve(VM_HANDLER));
  const config = await readFile(berthd.configFile, 'utf8');
  await writeFile(berthd.configFile, config.replace('"tcfilter"', '"macvtap"'));
  await berthd.stop();
  await berthd.start();
  vms.set('macvtap', await serve(VM_HANDLER));
}, 400_000);

afterAll(async () => {
  expect(await berthd?.close()).toEqual([]);
});

async function writeDualStack(): Promise<void> {
  const { dir, tag, bridge } = berthd;
  const ranges = [
    [{ subnet: `10.62.${Number.parseInt(tag.slice(0, 2), 16)}.0/24` }],
    [{ subnet: `fd00:${tag.slice(0, 4)}:${tag.slice(4)}::/64` }],
  ];
  const routes = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }];
  const ipam = { type: 'host-local', dataDir: path.join(dir, 'ipam'), ranges, routes };
  const plugins = [{ type: 'bridge', bridge, isGateway: true, mtu: 1400, ipam }];
  const list = { cniVersion: '1.0.0', name: `dual-${tag}`, plugins };
  await writeFile(path.join(dir, 'net.d/10-dual.conflist'), JSON.stringify(list));
}

async function serve(handler: string): Promise<Served> {
  const pod = await pods.run({ dns_config: DNS, linux: { sysctls: SYSCTLS } }, handler);
  const { network } = await pods.podStatus(pod);
  const ips = [network?.ip ?? '', ...(network?.additional_ips ?? []).map(({ ip }) => ip)];
  const script = `mkdir /www /local; head -c ${2 * MIB} /dev/zero >/www/f; echo -n local >/local/f
    httpd -p 127.0.0.1:8081 -h /local; exec httpd -f -p 8080 -h /www`;
  const container = await pods.start(pod, sh(script, { linux: { resources: LIMITS } }));
  return { ...pod, container, ips };
}

/** A command's output; a guest that others keep waiting may take long. */
async function ask({ container }: Served, script: string): Promise<string> {
  const said = await pods.exec(container, ['sh', '-c', script], 90);
  expect(said).toMatchObject({ code: 0, stderr: '' });
  return said.stdout.replace(/\n$/, '');
}

/** Gets the other's file by each of its addresses. @returns how long the answers were */
async function get(from: Served, to: Served): Promise<number[]> {
  // Not wget, which asks a library for its port that the image does not have.
  const one = "printf 'GET /f HTTP/1.0\\r\\n\\r\\n' | nc -w 60 $ip 8080 | wc -c";
  const said = await ask(from, `for ip in ${to.ips.join(' ')}; do ${one}; done`);
  return said.split('\n').map(Number);
}

/** Bytes received and sent by the pod's interface: as CRI tells them, as the container sees them. */
async function traffic(vm: Served): Promise<{ told: number[]; seen: number[] }> {
  const statistics = '/sys/class/net/eth0/statistics';
  const text = await ask(vm, `cat ${statistics}/rx_bytes ${statistics}/tx_bytes`);
  const { stats } = await berthd.client.runtime('PodSandboxStats', { pod_sandbox_id: vm.id });
  const { default_interface, interfaces = [] } = stats?.linux?.network ?? {};
  const { rx_bytes, tx_bytes } = default_interface ?? {};
  // The guest's tap is not the pod's.
  expect([default_interface?.name, ...interfaces.map(({ name }) => name)]).toEqual(['eth0', 'eth0']);
  return { told: [Number(rx_bytes?.value), Number(tx_bytes?.value)], seen: text.split('\n').map(Number) };
}

/** Names of a container's metrics. */
async function families({ id, container }: Served): Promise<string[]> {
  const { pod_metrics } = await berthd.client.runtime('ListPodSandboxMetrics', {});
  const all = pod_metrics.find(({ pod_sandbox_id }) => pod_sandbox_id === id)?.container_metrics;
  const metrics = all?.find(({ container_id }) => container_id === container)?.metrics ?? [];
  return [...new Set(metrics.map(({ name }) => name))].sort();
}

describe.each(MODELS)('a pod of both families in a virtual machine, joined by %s', (model) => {
  const pod = (): Served => {
    const vm = vms.get(model);
    if (vm === undefined) throw new Error('no pod');
    return vm;
  };

  it("has its pod's MAC, addresses, routes, MTU, name servers and kernel parameters", async () => {
    const vm = pod();
    expect(vm.ips).toEqual([expect.stringMatching(/^10\.62\./), expect.stringMatching(/^fd00:/)]);
    const netns = path.join(berthd.dir, 'state/sandboxes', vm.id, 'ns/net');
    const { stdout } = await exec('nsenter', [`--net=${netns}`, 'ip', '-json', 'link', 'show', 'eth0']);
    // As few programs as possible: each takes the guest a moment.
    const files = [
      ...['/sys/class/net/eth0/address', '/sys/class/net/eth0/mtu', '/etc/resolv.conf'],
      ...Object.keys(SYSCTLS).map((name) => `/proc/sys/${name.replaceAll('.', '/')}`),
    ];
    const command = `cat ${files.join(' ')}; ip -o addr show eth0; ip -4 route; ip -6 route`;
    const seen = await ask(vm, command);
    expect(seen.split('\n').slice(0, 8)).toEqual([
      ...[JSON.parse(stdout)[0].address, '1400'],
      ...['search a.test', 'nameserver 192.0.2.53', 'nameserver 2001:db8::53', 'options ndots:3'],
      ...Object.values(SYSCTLS),
    ]);
    const [v4 = '', v6 = ''] = vm.ips;
    const addresses = [...seen.matchAll(/ inet6? (\S+) .*scope global/g)].map(([, address]) => address);
    expect(addresses.sort()).toEqual([`${v4}/24`, `${v6}/64`]);
    const ways = [...seen.matchAll(/^default via (\S+) dev eth0/gm)].map(([, gateway]) => gateway);
    expect(ways).toEqual([v4.replace(/\d+$/, '1'), v6.replace(/::.*$/, '::1')]);
  });

  it('reaches a pod of another handler and is reached by it, which its figures tell', async () => {
    const vm = pod();
    // What came before the guest had a card was the interface's alone.
    const before = await traffic(vm);
    const lengths = [...(await get(runc, vm)), ...(await get(vm, runc))];
    expect(lengths.map((length) => length > 2 * MIB)).toEqual([true, true, true, true]);
    const after = await traffic(vm);
    for (const i of [0, 1]) {
      const [told, seen] = [
        (after.told[i] ?? 0) - (before.told[i] ?? 0),
        (after.seen[i] ?? 0) - (before.seen[i] ?? 0),
      ];
      expect(seen).toBeGreaterThan(4 * MIB);
      // A frame or two may come between the two readings.
      expect(Math.abs(told - seen)).toBeLessThan(2_000);
    }
  }, 240_000);

  it("forwards ports to the guest's loopback", async () => {
    const { url } = await berthd.client.runtime('PortForward', { pod_sandbox_id: pod().id, port: [8081] });
    const client = await forwardOverSpdy(url);
    const connection = await client.open(8081);
    connection.send('GET /f HTTP/1.0\r\n\r\n');
    await until('an answer on the loopback', () => connection.text.endsWith('local'));
    const refused = await client.open(9);
    await until('a refusal', () => /listens/.test(refused.error));
    client.destroy();
  });

  it('has all metrics that a container of runc has', async () => {
    const [ofVm, ofRunc] = [await families(pod()), await families(runc)];
    expect(ofVm).toEqual(expect.arrayContaining(ofRunc.filter((name) => !name.includes('hugetlb'))));
    expect(ofVm).toContain('container_pressure_cpu_waiting_seconds_total');
  });
});

it('a machine runs on the processors that its containers are given', async () => {
  const { container = '' } = vms.get('tcfilter') ?? {};
  const pid = await pods.pid('container', container);
  const allowed = async () => {
    const tasks = await readdir(`/proc/${pid}/task`);
    const texts = await Promise.all(
      tasks.map((task) => readFile(`/proc/${pid}/task/${task}/status`, 'utf8')),
    );
    return [...new Set(texts.map((text) => /^Cpus_allowed_list:\t(.*)$/m.exec(text)?.[1]))];
  };
  const [all = ''] = await allowed();
  for (const cpuset_cpus of [all.replace(/\D.*/, ''), all]) {
    const linux = { cpuset_cpus };
    await berthd.client.runtime('UpdateContainerResources', { container_id: container, linux });
    expect(await allowed()).toEqual([cpuset_cpus]);
  }
});
