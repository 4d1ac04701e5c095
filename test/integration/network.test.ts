import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Attachment, PodNetworkRequest } from '../../src/network/attachment.ts';
import { Cni, type CniOptions } from '../../src/network/cni.ts';
import { ConfWatcher } from '../../src/network/conf-watch.ts';
import { inheritedEnvironment } from '../../src/sys/exec.ts';
import { eventually } from '../support/eventually.ts';

const exec = promisify(execFile);
const debianPlugins = '/usr/lib/cni';
const tag = randomBytes(3).toString('hex');
/** Stands for the node: plugins run in it, so that bridges, sysctls and iptables rules are never the machine's. */
const node = `berth-node-${tag}`;
const bridge = `bt${tag}`;

const inNode = async (...argv: string[]) =>
  (await exec('nsenter', [`--net=/run/netns/${node}`, ...argv])).stdout;
const inPod = async (netns: string, ...argv: string[]) =>
  (await exec('nsenter', [`--net=${netns}`, ...argv])).stdout;

let dir: string;
let confDir: string;
let binDir: string;
let podNetns: string;
let cleanups: (() => unknown)[];

/** A program in `binDir` under the name of a plugin; each call is noted in `<dir>/calls`, its stdin kept. */
async function plugin(name: string, body: string): Promise<void> {
  const note = `echo "${name} $CNI_COMMAND" >> ${dir}/calls; cat > ${dir}/${name}-$CNI_COMMAND.json`;
  await writeFile(join(binDir, name), `#!/bin/sh\n${note}\n${body}\n`, { mode: 0o755 });
}

const calls = async () =>
  existsSync(`${dir}/calls`) ? (await readFile(`${dir}/calls`, 'utf8')).trim().split('\n') : [];
const stdinOf = async (name: string, command: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(join(dir, `${name}-${command}.json`), 'utf8'));

const leases = async () =>
  existsSync(`${dir}/leases/${bridge}`)
    ? (await readdir(`${dir}/leases/${bridge}`)).filter((f) => f !== 'lock' && !f.startsWith('last_reserved'))
    : [];

const ranges4 = [[{ subnet: '10.88.77.0/24' }]];
const ranges6 = [[{ subnet: 'fd00:88:77::/64' }]];

const bridgeConf = (ranges: unknown[]) => ({
  type: 'bridge',
  bridge,
  isGateway: true,
  ipMasq: true,
  hairpinMode: true,
  ipam: { type: 'host-local', dataDir: `${dir}/leases`, ranges, routes: [{ dst: '0.0.0.0/0' }] },
});

async function configure(file: string, plugins: unknown[], cniVersion = '1.0.0', more = {}): Promise<void> {
  await mkdir(confDir, { recursive: true });
  await writeFile(join(confDir, file), JSON.stringify({ name: bridge, cniVersion, plugins, ...more }));
}

function setUp(options: Partial<CniOptions> = {}): { cni: Cni; watcher: ConfWatcher } {
  const log = pino({ level: 'silent' });
  const watcher = new ConfWatcher(confDir, log);
  cleanups.push(() => watcher.close());
  const cni = new Cni({ watcher, host: { binDirs: [binDir], env: inheritedEnvironment() }, log, ...options });
  cleanups.push(() => cni.close());
  return { cni, watcher };
}

const pod = (more: Partial<PodNetworkRequest> = {}): PodNetworkRequest => ({
  sandboxId: randomBytes(32).toString('hex'),
  netnsPath: podNetns,
  metadata: { name: 'web', namespace: 'default', uid: 'c0ffee' },
  portMappings: [],
  annotations: {},
  cgroupPath: '',
  ...more,
});

/** Through JSON, as the sandbox's record stores it. */
const stored = (attachment: Attachment): Attachment => JSON.parse(JSON.stringify(attachment));

const addressesOf = async (netns: string): Promise<string[]> => {
  const links: { addr_info: { local: string; scope: string }[] }[] = JSON.parse(
    await inPod(netns, 'ip', '-j', 'address', 'show', 'dev', 'eth0'),
  );
  return links.flatMap((l) => l.addr_info.filter((a) => a.scope === 'global').map((a) => a.local));
};

beforeAll(async () => {
  await exec('ip', ['netns', 'add', node]);
  await inNode('ip', 'link', 'set', 'lo', 'up');
});

afterAll(async () => {
  await exec('ip', ['netns', 'delete', node]);
});

beforeEach(async () => {
  cleanups = [];
  dir = await mkdtemp(join(tmpdir(), 'berth-cni-'));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
  confDir = join(dir, 'etc/cni/net.d');
  binDir = join(dir, 'bin');
  await mkdir(binDir);
  for (const name of ['bridge', 'host-local', 'portmap', 'bandwidth'])
    await writeFile(
      join(binDir, name),
      `#!/bin/sh\nexec nsenter --net=/run/netns/${node} ${debianPlugins}/${name}\n`,
      { mode: 0o755 },
    );
  const name = `berth-pod-${randomBytes(4).toString('hex')}`;
  await exec('ip', ['netns', 'add', name]);
  podNetns = `/run/netns/${name}`;
  cleanups.push(() => exec('ip', ['netns', 'delete', name]).catch(() => undefined));
});

afterEach(async () => {
  for (const cleanup of cleanups.toReversed()) await cleanup();
});

describe('bridge, host-local and portmap', () => {
  it.each(['0.3.1', '0.4.0', '1.0.0'])(
    'gives a pod its address and takes it back (CNI %s)',
    async (version) => {
      await configure(
        '10-net.conflist',
        [bridgeConf(ranges4), { type: 'portmap', capabilities: { portMappings: true } }],
        version,
      );
      const { cni } = setUp();
      const prepared = await cni.prepare(
        pod({ portMappings: [{ protocol: 'TCP', containerPort: 80, hostPort: 18080, hostIp: '' }] }),
      );
      expect(await leases()).toEqual([]);
      const added = stored(await cni.add(stored(prepared)));
      expect(await addressesOf(podNetns)).toEqual(added.ips);
      expect(await leases()).toEqual(added.ips);
      expect(await inNode('iptables', '-t', 'nat', '-S')).toContain(`--to-destination ${added.ips[0]}:80`);

      await cni.del(added);
      expect(await leases()).toEqual([]);
      expect(await inNode('iptables', '-t', 'nat', '-S')).not.toContain('--to-destination');
      await expect(addressesOf(podNetns)).rejects.toThrow();
      await cni.del(added);
    },
  );

  it('carries traffic from a host port to the pod', async () => {
    await configure('10-net.conflist', [
      bridgeConf(ranges4),
      { type: 'portmap', capabilities: { portMappings: true } },
    ]);
    const { cni } = setUp();
    const added = await cni.add(
      await cni.prepare(
        pod({
          portMappings: [
            { protocol: 'TCP', containerPort: 80, hostPort: 18081, hostIp: '' },
            { protocol: 'UDP', containerPort: 53, hostPort: 0, hostIp: '' },
          ],
        }),
      ),
    );
    const server = spawn('nsenter', [
      `--net=${podNetns}`,
      process.execPath,
      '-e',
      "require('net').createServer((s) => s.end('from the pod')).listen(80, () => console.log('up'))",
    ]);
    cleanups.push(() => server.kill());
    await new Promise((resolve) => server.stdout.once('data', resolve));
    const client = "require('net').connect(18081, process.argv[1]).pipe(process.stdout)";
    expect(await inNode(process.execPath, '-e', client, '10.88.77.1')).toBe('from the pod');
    expect(await inNode('iptables', '-t', 'nat', '-S')).not.toContain(':53');
    await cni.del(added);
  });

  it('gives IPv4 and IPv6 addresses, the first range being the primary one', async () => {
    await configure('10-net.conflist', [bridgeConf([...ranges6, ...ranges4])]);
    const { cni } = setUp();
    const added = await cni.add(await cni.prepare(pod()));
    expect(added.ips).toEqual([
      expect.stringMatching(/^fd00:88:77::/),
      expect.stringMatching(/^10\.88\.77\./),
    ]);
    expect((await addressesOf(podNetns)).toSorted()).toEqual(added.ips.toSorted());
    await cni.del(added);
    expect(await leases()).toEqual([]);
  });

  it('limits the bandwidth that annotations ask for', async () => {
    await configure('10-net.conflist', [
      bridgeConf(ranges4),
      { type: 'bandwidth', capabilities: { bandwidth: true } },
    ]);
    const { cni } = setUp();
    const annotations = { 'kubernetes.io/ingress-bandwidth': '10M', 'kubernetes.io/egress-bandwidth': '3M' };
    const added = await cni.add(await cni.prepare(pod({ annotations })));
    const limits = [...(await inNode('tc', 'qdisc')).matchAll(/tbf .* rate (\w+)/g)];
    expect(limits.map(([, rate]) => rate).toSorted()).toEqual(['10Mbit', '3Mbit']);
    await cni.del(added);
    expect(await inNode('tc', 'qdisc')).not.toContain('tbf');
  });

  it('gives an IPv6-only pod its address', async () => {
    await configure('10-net.conflist', [bridgeConf(ranges6)]);
    const { cni } = setUp();
    const added = await cni.add(await cni.prepare(pod()));
    expect(added.ips).toEqual(await addressesOf(podNetns));
    await cni.del(added);
  });

  it('frees the address when the namespace is gone, or is a plain file', async () => {
    await configure('10-net.conflist', [
      bridgeConf(ranges4),
      { type: 'portmap', capabilities: { portMappings: true } },
    ]);
    const { cni } = setUp();
    const added = await cni.add(await cni.prepare(pod()));
    await exec('ip', ['netns', 'delete', podNetns.slice('/run/netns/'.length)]);
    const plain = join(dir, 'not-a-namespace');
    await writeFile(plain, '');
    await cni.del({ ...added, netnsPath: plain });
    expect(await leases()).toEqual([]);
    await cni.del(added);
  });

  it('tears down with the configuration of ADD, not with today’s', async () => {
    await configure('10-net.conflist', [bridgeConf(ranges4)]);
    const { cni } = setUp();
    const added = stored(await cni.add(await cni.prepare(pod())));
    await writeFile(join(confDir, '10-net.conflist'), '{ broken');
    await cni.del(added);
    expect(await leases()).toEqual([]);
  });

  it('tears down what was stored before ADD was cut short', async () => {
    await configure('10-net.conflist', [bridgeConf(ranges4)]);
    const { cni } = setUp();
    const prepared = stored(await cni.prepare(pod()));
    await cni.add(prepared);
    // The daemon died before the result was stored.
    await cni.del(prepared);
    expect(await leases()).toEqual([]);
  });

  it('serves many pods at once', async () => {
    await configure('10-net.conflist', [bridgeConf(ranges4)]);
    const { cni } = setUp();
    const names = Array.from({ length: 6 }, (_, i) => `berth-pod-${tag}-${i}`);
    for (const name of names) {
      await exec('ip', ['netns', 'add', name]);
      cleanups.push(() => exec('ip', ['netns', 'delete', name]));
    }
    const added = await Promise.all(
      names.map(async (name) => cni.add(await cni.prepare(pod({ netnsPath: `/run/netns/${name}` })))),
    );
    expect(new Set(added.flatMap((a) => a.ips)).size).toBe(6);
    await Promise.all(added.map((a) => cni.del(a)));
    expect(await leases()).toEqual([]);
  });
});

describe('a chain that fails', () => {
  const failures: [string, string, RegExp][] = [
    [
      'refuses',
      `echo '{"cniVersion":"1.0.0","code":110,"msg":"no room","details":"pool is full"}'; exit 1`,
      /"bad" failed on ADD: no room; pool is full/,
    ],
    ['asks to be tried later', `echo '{"code":11,"msg":"agent is starting"}'; exit 1`, /agent is starting/],
    ['crashes', 'echo "segfault at 0" >&2; exit 3', /"bad" failed on ADD: exited with 3: segfault at 0/],
    ['is killed', 'kill -KILL $$', /"bad" failed on ADD: was ended by SIGKILL/],
    ['answers nonsense', 'echo "<html>"', /"bad" answered what is not JSON: <html>/],
    ['answers nothing', 'exit 0', /"bad" answered nothing/],
    ['answers without addresses', 'echo "{}"', /gave interface eth0 no IP address/],
    [
      'answers a malformed address',
      `echo '{"ips":[{"address":"10.1.1.1.1/24"}]}'`,
      /ips\[0\] without a valid address/,
    ],
    ['floods', 'exec tr "\\0" x < /dev/zero', /bytes/],
  ];

  it.each(failures)('is rolled back when a plugin %s', async (_, onAdd, message) => {
    await plugin('bad', `[ $CNI_COMMAND = ADD ] || exit 0\n${onAdd}`);
    await configure('10-net.conflist', [bridgeConf(ranges4), { type: 'bad' }]);
    const { cni } = setUp();
    await expect(cni.add(await cni.prepare(pod()))).rejects.toThrow(message);
    expect(await calls()).toEqual(['bad ADD', 'bad DEL']);
    expect(await leases()).toEqual([]);
    await expect(addressesOf(podNetns)).rejects.toThrow();
  });

  it('is killed with its children at the deadline, and rolled back', async () => {
    await plugin(
      'bad',
      `[ $CNI_COMMAND = ADD ] || exit 0\nsleep 4711 & echo $! > ${dir}/child; echo $$ > ${dir}/self; wait`,
    );
    await configure('10-net.conflist', [bridgeConf(ranges4), { type: 'bad' }]);
    const { cni } = setUp({ timeoutMs: 2_000 });
    await expect(cni.add(await cni.prepare(pod()))).rejects.toMatchObject({ kind: 'deadline' });
    for (const file of ['self', 'child']) {
      const pid = (await readFile(join(dir, file), 'utf8')).trim();
      await eventually(async () => expect(await stateOf(pid)).toMatch(/^(gone|Z)$/));
    }
    expect(await leases()).toEqual([]);
  });

  it('is killed when the caller gives up, and rolled back', async () => {
    await plugin('bad', `[ $CNI_COMMAND = ADD ] || exit 0\nexec sleep 4712`);
    await configure('10-net.conflist', [bridgeConf(ranges4), { type: 'bad' }]);
    const { cni } = setUp();
    const abort = new AbortController();
    const adding = cni.add(await cni.prepare(pod()), abort.signal);
    const outcome = expect(adding).rejects.toMatchObject({ kind: 'cancelled' });
    await eventually(async () => expect(await calls()).toContain('bad ADD'));
    abort.abort();
    await outcome;
    expect(await leases()).toEqual([]);
  });

  it('frees the address although another plugin of the chain cannot be torn down, and says so', async () => {
    await plugin(
      'bad',
      `[ $CNI_COMMAND = ADD ] || { echo '{"code":100,"msg":"stuck"}'; exit 1; }\ncat ${dir}/answer`,
    );
    await configure('10-net.conflist', [bridgeConf(ranges4), { type: 'bad' }]);
    await writeFile(join(dir, 'answer'), '{"ips":[{"address":"10.88.77.9/24"}]}');
    const { cni } = setUp();
    const added = await cni.add(await cni.prepare(pod()));
    await expect(cni.del(added)).rejects.toThrow(
      `network "${bridge}": CNI plugin "bad" failed on DEL: stuck`,
    );
    expect(await leases()).toEqual([]);
    await plugin('bad', 'exit 0');
    await cni.del(added);
  });

  it('counts as torn down when a plugin insists on a namespace that is gone', async () => {
    await plugin(
      'bad',
      `[ -n "$CNI_NETNS" ] || { echo '{"code":4,"msg":"CNI_NETNS is missing"}'; exit 1; }\necho '{"ips":[{"address":"10.88.77.9/24"}]}'`,
    );
    await configure('10-net.conflist', [{ type: 'bad' }]);
    const { cni } = setUp();
    const added = await cni.add(await cni.prepare(pod()));
    await cni.del({ ...added, netnsPath: '/run/netns/berth-none' });
  });
});

async function stateOf(pid: string): Promise<string> {
  try {
    return (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /s, '').charAt(0);
  } catch {
    return 'gone';
  }
}

describe('what plugins are told', () => {
  const answer = `echo '{"cniVersion":"1.0.0","ips":[{"address":"10.88.77.9/24"}]}'`;

  it('is the pod, the previous result and only the capabilities that they declare', async () => {
    await plugin('one', `[ $CNI_COMMAND != ADD ] || env > ${dir}/env\n${answer}`);
    await plugin('two', answer);
    await configure('10-net.conflist', [
      { type: 'one', capabilities: { bandwidth: true, dns: false }, mtu: 1400 },
      { type: 'two', capabilities: { portMappings: true, dns: true, cgroupPath: true } },
    ]);
    const { cni } = setUp();
    const request = pod({
      portMappings: [{ protocol: 'SCTP', containerPort: 9, hostPort: 19, hostIp: '127.0.0.1' }],
      dns: { servers: ['10.0.0.10'], searches: ['svc'], options: [] },
      annotations: { 'kubernetes.io/ingress-bandwidth': '10M' },
      cgroupPath: '/kubepods/pod1',
    });
    await cni.del(await cni.add(await cni.prepare(request)));
    expect(await stdinOf('one', 'ADD')).toEqual({
      type: 'one',
      name: bridge,
      cniVersion: '1.0.0',
      mtu: 1400,
      capabilities: { bandwidth: true, dns: false },
      runtimeConfig: { bandwidth: { ingressRate: 10_000_000, ingressBurst: 4_294_967_295 } },
    });
    const prevResult = { cniVersion: '1.0.0', ips: [{ address: '10.88.77.9/24' }] };
    expect(await stdinOf('two', 'ADD')).toMatchObject({
      prevResult,
      runtimeConfig: {
        portMappings: [{ hostPort: 19, containerPort: 9, protocol: 'sctp', hostIP: '127.0.0.1' }],
        dns: { servers: ['10.0.0.10'], searches: ['svc'], options: [] },
        cgroupPath: '/kubepods/pod1',
      },
    });
    expect(await stdinOf('one', 'DEL')).toMatchObject({ prevResult });
    expect(await calls()).toEqual(['one ADD', 'two ADD', 'two DEL', 'one DEL']);
    const env = await readFile(`${dir}/env`, 'utf8');
    expect(env).toContain(
      `CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=${request.sandboxId};K8S_POD_UID=c0ffee\n`,
    );
    expect(env).toContain(`CNI_NETNS=${podNetns}\n`);
    expect(env).toContain('CNI_IFNAME=eth0\n');
    expect(env).toContain(`CNI_PATH=${binDir}\n`);
  });

  it('on GC is which attachments of this network are alive, and ADD waits', async () => {
    await plugin('one', `[ $CNI_COMMAND != GC ] || sleep 0.2\n${answer}`);
    await configure('10-net.conflist', [{ type: 'one' }], '1.1.0');
    const { cni } = setUp();
    const alive = await cni.add(await cni.prepare(pod()));
    const foreign = { ...alive, network: { ...alive.network, name: 'other' } };
    const collecting = cni.gc(() => [alive, foreign]);
    const second = await cni.prepare(pod());
    await Promise.all([collecting, cni.add(second)]);
    expect(await calls()).toEqual(['one ADD', 'one GC', 'one ADD']);
    const valid = [{ containerID: alive.sandboxId, ifname: 'eth0' }];
    expect(await stdinOf('one', 'GC')).toMatchObject({
      'cni.dev/valid-attachments': valid,
      'cni.dev/attachments': valid,
    });
  });
});

describe('readiness', () => {
  it('comes with a configuration in a directory made later, without a restart', async () => {
    const { cni, watcher } = setUp();
    expect(await cni.status()).toEqual({
      ready: false,
      reason: 'NetworkPluginNotReady',
      message: expect.stringContaining(`no CNI configuration (*.conflist, *.conf, *.json) in ${confDir}`),
    });
    await expect(cni.prepare(pod())).rejects.toMatchObject({ kind: 'unavailable' });
    // Nobody asks: the watch alone has to see what happens.
    await configure('10-net.conflist', [bridgeConf(ranges4)]);
    await eventually(() => expect(watcher.current().network?.name).toBe(bridge));
    expect(await cni.status()).toEqual({ ready: true, reason: '', message: '' });

    await rm(join(dir, 'etc'), { recursive: true });
    await eventually(() => expect(watcher.current().network).toBeUndefined());
    await configure('10-net.conf', [], '1.0.0', { type: 'bridge', plugins: undefined });
    await eventually(() => expect(watcher.current().network?.plugins[0]?.type).toBe('bridge'));
  });

  it('says which file is broken and how, and uses the next valid one', async () => {
    const { cni } = setUp();
    await mkdir(confDir, { recursive: true });
    await writeFile(join(confDir, '00-broken.conflist'), '{"name":"x","cniVersion":"1.0.0"}');
    expect((await cni.status()).message).toContain('00-broken.conflist: "plugins" is missing or empty');
    await configure('10-net.conflist', [bridgeConf(ranges4)]);
    expect(await cni.status()).toMatchObject({ ready: true });
  });

  it('names a plugin that is not installed, and notices when it is', async () => {
    await configure('10-net.conflist', [{ type: 'calico' }]);
    const { cni } = setUp();
    expect((await cni.status()).message).toContain(`CNI plugin "calico" is not in ${binDir}`);
    await plugin('calico', 'exit 0');
    expect(await cni.status()).toMatchObject({ ready: true });
  });

  it('asks STATUS from CNI 1.1.0 on, without being held up by it', async () => {
    await plugin('one', `echo '{"code":50,"msg":"agent is down"}'; exit 1`);
    await configure('10-net.conflist', [{ type: 'one' }], '1.1.0');
    const { cni } = setUp({ statusMaxAgeMs: 0, statusTimeoutMs: 60_000 });
    expect(await cni.status()).toMatchObject({
      ready: false,
      message: expect.stringContaining('agent is down'),
    });
    await plugin('one', 'exit 0');
    await eventually(async () => expect(await cni.status()).toMatchObject({ ready: true }));
    await plugin('one', 'exec sleep 4713');
    const started = performance.now();
    for (let i = 0; i < 3; i++) expect(await cni.status()).toMatchObject({ ready: true });
    expect(performance.now() - started).toBeLessThan(20_000);
    expect((await calls()).filter((c) => c === 'one STATUS').length).toBeLessThan(10);
  });
});
