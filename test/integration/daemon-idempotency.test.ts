import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import type { CallSettings } from '../../src/cli/client.ts';
import type { FaultPoint } from '../../src/faults.ts';
import { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import { start } from '../support/cli.ts';
import { FaultPlan } from '../support/faults.ts';
import { sharedDirectory } from '../support/host.ts';
import {
  containerConfig,
  IDLE,
  importArchive,
  mountsOfEveryKind,
  type Pod,
  Pods,
  refusal,
  until,
} from '../support/pods.ts';
import { Wrapper } from '../support/wrappers.ts';

const OTHER_IMAGE = 'localhost/berth-test/other:1';

let dir: string;
let shared: Awaited<ReturnType<typeof sharedDirectory>>;
let plan: FaultPlan;
let wrappers: Record<'runc' | 'bridge', Wrapper>;
let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  shared = await sharedDirectory();
  dir = await mkdtemp(path.join(tmpdir(), 'berth-idempotency-'));
  plan = new FaultPlan(dir);
  await plan.set([]);
  wrappers = {
    runc: await Wrapper.make(path.join(dir, 'bin'), '/usr/sbin/runc', 'runtime'),
    bridge: await Wrapper.make(path.join(dir, 'cni'), '/usr/lib/cni/bridge', 'cni'),
  };
  berthd = await Berthd.start({
    env: plan.env,
    binDirs: [path.join(dir, 'cni'), '/usr/lib/cni'],
    tables: `[runtimes.runc]
type = "oci"
path = "/usr/sbin/runc"
[runtimes.wrapped]
type = "oci"
path = "${wrappers.runc.program}"`,
  });
  await berthd.importBusybox();
  await importArchive(berthd, await busyboxArchive(OTHER_IMAGE, ['sh']));
  pods = new Pods(berthd);
});
afterEach(async () => {
  await plan.set([]);
  for (const wrapper of Object.values(wrappers)) await wrapper.plan();
  expect(await berthd.removeAllPods()).toEqual([]);
});
afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
  await shared.remove();
  await rm(dir, { recursive: true });
});

/** Ends the daemon without warning and starts it again. */
async function crash(): Promise<void> {
  await berthd.stop('SIGKILL');
  await berthd.start();
}

/** One of the two verbs that make something under a name, with everything that a caller can say. */
interface Maker {
  /** @returns the id */
  make(change?: object, settings?: CallSettings): Promise<string>;
  /** What is listed. */
  ids(): Promise<string[]>;
  /** Nanoseconds since the epoch. */
  createdAt(id: string): Promise<bigint>;
}

const LABELS = { app: 'web', odd: 'ünïcode ☃ "quoted"\n' };

function sandboxMaker(): Maker {
  const config: PodSandboxConfig = pods.config({
    labels: LABELS,
    annotations: { 'a/b': '1' },
    dns_config: { servers: ['192.0.2.53'], searches: ['cluster.local'], options: ['ndots:5'] },
    port_mappings: [{ protocol: 'TCP', container_port: 80, host_port: 0, host_ip: '' }],
    linux: {
      sysctls: { 'net.ipv4.ip_local_port_range': '20000 20999' },
      overhead: { cpu_shares: 2, memory_limit_in_bytes: '1048576' },
      resources: { cpu_period: 100_000, cpu_quota: 50_000, memory_limit_in_bytes: '9007199254740993' },
      security_context: {
        run_as_user: { value: '1000' },
        supplemental_groups: ['1', '2147483647'],
        seccomp: { profile_type: 'RuntimeDefault' },
        namespace_options: { network: 'POD', pid: 'CONTAINER', ipc: 'POD' },
      },
    },
  });
  return {
    make: async (change = {}, settings = {}) => {
      const { runtime_handler = '', ...rest } = change as PodSandboxConfig & { runtime_handler?: string };
      const linux = { ...config.linux, ...rest.linux };
      const request = { config: { ...config, ...rest, linux }, runtime_handler };
      return (await berthd.client.runtime('RunPodSandbox', request, settings)).pod_sandbox_id;
    },
    ids: async () => (await berthd.client.runtime('ListPodSandbox', {})).items.map(({ id }) => id),
    createdAt: async (id) => BigInt((await pods.podStatus(id)).created_at),
  };
}

async function containerMaker(): Promise<Maker> {
  const pod = await pods.run();
  const config: ContainerConfig = containerConfig({
    ...IDLE,
    args: ['1'],
    working_dir: '/tmp',
    envs: [{ key: 'A', value: Buffer.from('1') }],
    labels: LABELS,
    annotations: { 'a/b': '1' },
    mounts: mountsOfEveryKind(shared.dir),
    devices: [{ container_path: '/dev/another', host_path: '/dev/null', permissions: 'rw' }],
    linux: {
      resources: { cpu_shares: 512, memory_limit_in_bytes: 64 << 20, oom_score_adj: 500 },
      security_context: {
        namespace_options: { pid: 'CONTAINER' },
        run_as_user: { value: '1000' },
        run_as_group: { value: '1001' },
        supplemental_groups: ['2000'],
        capabilities: { add_capabilities: ['NET_ADMIN'], drop_capabilities: ['MKNOD'] },
      },
    },
  });
  return {
    make: async (change = {}, settings = {}) => {
      const rest = change as ContainerConfig;
      const linux = { ...config.linux, ...rest.linux };
      const request = {
        pod_sandbox_id: pod.id,
        config: { ...config, ...rest, linux },
        sandbox_config: pod.config,
      };
      return (await berthd.client.runtime('CreateContainer', request, settings)).container_id;
    },
    ids: async () => (await berthd.client.runtime('ListContainers', {})).containers.map(({ id }) => id),
    createdAt: async (id) => BigInt((await pods.status(id)).created_at),
  };
}

const MAKERS: [string, () => Maker | Promise<Maker>, FaultPoint, FaultPoint][] = [
  ['RunPodSandbox', sandboxMaker, 'RunPodSandbox.recorded', 'RunPodSandbox.hosts'],
  ['CreateContainer', containerMaker, 'CreateContainer.recorded', 'CreateContainer.spec'],
];

/** Waits until what was planned has begun to happen. */
const held = (point: FaultPoint) =>
  until(`${point} is reached`, async () => (await plan.done()).some((line) => line.startsWith(point)));

describe.each(MAKERS)('%s in flight', (_verb, maker, early, late) => {
  it('goes on when its caller has given up, and a retry gets what it makes', async () => {
    for (const patience of ['a deadline that passes', 'a connection that is cut']) {
      const { make, ids, createdAt } = await maker();
      await plan.set([{ point: early, action: 'delay 2500' }]);
      const leave = new AbortController();
      const settings = patience.startsWith('a deadline') ? { timeoutMs: 1000 } : { signal: leave.signal };
      const given = refusal(make({}, settings));
      await held(early);
      leave.abort();
      expect((await given).kind).toBe('signal' in settings ? 'cancelled' : 'deadline');
      const gaveUp = BigInt(Date.now()) * 1_000_000n;
      // What is half made is not to be seen: the kubelet would take a container that never starts for one that did.
      expect(await ids()).toEqual([]);
      const id = await make();
      expect(await createdAt(id)).toBeLessThan(gaveUp);
      expect(await ids()).toEqual([id]);
      expect(await make()).toBe(id);
      await berthd.removeAllPods();
    }
  });

  it('refuses another configuration by name, and is not disturbed', async () => {
    const { make, ids } = await maker();
    await plan.set([{ point: early, action: 'delay 1000' }]);
    const first = make();
    await held(early);
    expect(await refusal(make({ labels: { ...LABELS, app: 'other' } }))).toEqual({
      kind: 'alreadyExists',
      message: expect.stringMatching(/ attempt 0 exists with another labels\.app$/),
    });
    const same = make();
    expect(await same).toBe(await first);
    expect(await ids()).toEqual([await first]);
  });

  it('tells its failure to all who joined, and the name is free at once', async () => {
    const { make, ids } = await maker();
    await plan.set([
      { point: early, action: 'delay 500' },
      { point: late, action: 'error' },
    ]);
    const first = refusal(make());
    await held(early);
    const second = refusal(make());
    expect(await first).toEqual({ kind: 'internal', message: expect.stringContaining('planned fault') });
    expect(await second).toEqual(await first);
    expect(await ids()).toEqual([]);
    // Another configuration, too: nothing remembers the one that failed.
    const id = await make({ labels: { app: 'other' } });
    expect(await ids()).toEqual([id]);
  });
});

/** One change each, and the name under which it is refused. */
const OTHER_SANDBOXES: [string, object][] = [
  ['hostname', { hostname: 'other' }],
  ['logDirectory', { log_directory: '/tmp/other' }],
  ['labels.app', { labels: { ...LABELS, app: 'b' } }],
  ['labels.odd', { labels: { app: 'web' } }],
  ['annotations.new', { annotations: { 'a/b': '1', new: '' } }],
  ['dns.servers', { dns_config: { servers: [], searches: ['cluster.local'], options: ['ndots:5'] } }],
  ['dns', { dns_config: null }],
  ['portMappings', { port_mappings: [] }],
  ['cgroupParent', { linux: { cgroup_parent: '/other' } }],
  ['sysctls.net.ipv4.ip_local_port_range', { linux: { sysctls: {} } }],
  [
    'resources.memoryLimitBytes',
    {
      linux: {
        resources: { cpu_period: 100_000, cpu_quota: 50_000, memory_limit_in_bytes: '9007199254740992' },
      },
    },
  ],
  ['runtime_handler', { runtime_handler: 'wrapped' }],
];

const OTHER_CONTAINERS: [string, object][] = [
  ['image.image', { image: { image: OTHER_IMAGE } }],
  ['command', { command: ['sleep'] }],
  ['args', { args: ['2'] }],
  ['workingDir', { working_dir: '/' }],
  ['envs', { envs: [{ key: 'A', value: Buffer.from('2') }] }],
  ['mounts', { mounts: [] }],
  ['devices', { devices: [] }],
  ['labels.odd', { labels: { app: 'web' } }],
  ['annotations.a/b', { annotations: { 'a/b': '2' } }],
  ['logPath', { log_path: 'other.log' }],
  ['tty', { tty: true }],
  ['stopSignal', { stop_signal: 'SIGINT' }],
  [
    'resources.cpuShares',
    { linux: { resources: { cpu_shares: 513, memory_limit_in_bytes: 64 << 20, oom_score_adj: 500 } } },
  ],
  [
    'oomScoreAdj',
    { linux: { resources: { cpu_shares: 512, memory_limit_in_bytes: 64 << 20, oom_score_adj: 501 } } },
  ],
];

describe('an attempt that is there', () => {
  it.each<[string, () => Maker | Promise<Maker>, [string, object][]]>([
    ['RunPodSandbox', sandboxMaker, OTHER_SANDBOXES],
    ['CreateContainer', containerMaker, OTHER_CONTAINERS],
  ])(
    'is what %s answers for the same configuration; another is refused by name, after a restart too',
    async (_verb, maker, others) => {
      const { make, ids } = await maker();
      const id = await make();
      for (const when of ['at first', 'after a restart']) {
        expect(await make(), when).toBe(id);
        const said: [string, string][] = [];
        for (const [field, change] of others) {
          const { kind, message } = await refusal(make(change)).catch((e: unknown) => ({
            kind: 'none',
            message: String(e),
          }));
          said.push([field, `${kind}: ${message.replace(/^.* exists with another /, '')}`]);
        }
        expect(said, when).toEqual(others.map(([field]) => [field, `alreadyExists: ${field}`]));
        expect(await ids(), when).toEqual([id]);
        await crash();
      }
      expect(await make()).toBe(id);
    },
  );

  it('but is not ready any more is refused, and a next attempt is another sandbox', async () => {
    const pod = await pods.run();
    await pods.stopPod(pod);
    expect(await refusal(pods.run(pod.config))).toEqual({
      kind: 'alreadyExists',
      message: expect.stringMatching(/ attempt 0 exists and is not ready; remove it first$/),
    });
    const next = await pods.run({ ...pod.config, metadata: { ...pod.config.metadata, attempt: 1 } });
    expect(next.id).not.toBe(pod.id);
    await pods.removePod(pod);
    expect((await pods.run(pod.config)).id).not.toBe(pod.id);
  });

  it('as a container that has ended is what CreateContainer answers, and a next attempt is another', async () => {
    const pod = await pods.run();
    const config = containerConfig({ command: ['true'] });
    const { id } = await pods.runToEnd(pod, config);
    expect(await pods.create(pod, config)).toBe(id);
    const { name } = config.metadata ?? {};
    const next = await pods.create(pod, { ...config, metadata: { name: name ?? '', attempt: 1 } });
    expect(next).not.toBe(id);
    // In another pod the same name is another container.
    expect([id, next]).not.toContain(await pods.create(await pods.run(), config));
  });
});

it('RemovePodSandbox removes containers of every state', async () => {
  const pod = await pods.run();
  await pods.start(pod);
  await pods.create(pod);
  await pods.runToEnd(pod, { command: ['true'] });
  await pods.create(pod, { command: ['no-such-command'] });
  const other = await pods.start(await pods.run());
  await pods.removePod(pod);
  const { containers } = await berthd.client.runtime('ListContainers', {});
  expect(containers.map(({ id }) => id)).toEqual([other]);
});

describe('what cannot be taken down', () => {
  const shown = async () => {
    const { code, stdout } = await start(berthd.endpoint, ['info']);
    expect(code).toBe(0);
    return stdout.split('\n').filter((line) => line.startsWith('To clean up:'));
  };
  const leases = () => readdir(path.join(berthd.dir, 'ipam', `berth-${berthd.tag}`));

  it('of a sandbox is on the list of berth info, over restarts, until it is done; its name is free', async () => {
    const old: Pod = await pods.run();
    const { network } = await pods.podStatus(old);
    await wrappers.bridge.plan('DEL', 'fail', old.id);
    await pods.removePod(old);
    expect((await refusal(pods.podStatus(old))).kind).toBe('notFound');
    const line = new RegExp(
      `^To clean up: +sandbox: removal ${old.id}, tried \\d+ times: .*planned failure of DEL`,
    );
    expect(await shown()).toEqual([expect.stringMatching(line)]);
    const again = await pods.run(old.config);
    expect(again.id).not.toBe(old.id);
    expect((await pods.podStatus(again)).network?.ip).not.toBe(network?.ip);
    const { items } = await berthd.client.runtime('ListPodSandbox', {});
    expect(items.map(({ id }) => id)).toEqual([again.id]);
    await crash();
    expect(await shown()).toEqual([expect.stringMatching(line)]);
    expect(await leases()).toContain(network?.ip);
    await wrappers.bridge.plan();
    await until('it is done', async () => (await shown()).length === 0, 40_000);
    expect(await leases()).not.toContain(network?.ip);
    expect((await pods.podStatus(again)).state).toBe('SANDBOX_READY');
    expect(await pods.ask(await pods.start(again), 'echo on')).toBe('on');
  });

  it('of a container is there as well, and RemoveContainer frees its name', async () => {
    const pod = await pods.run({}, 'wrapped');
    const config = containerConfig({ ...IDLE, metadata: { name: 'same', attempt: 0 } });
    const id = await pods.start(pod, config);
    await wrappers.runc.plan('delete', 'fail', id);
    await pods.stop(id);
    expect(await pods.status(id)).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 137 });
    const remains = new RegExp(
      `^To clean up: +container: remains of an exited container ${id}, tried .*planned failure`,
    );
    await until('it is tried', async () => (await shown()).some((line) => remains.test(line)));
    await pods.removeContainer(id);
    expect((await refusal(pods.status(id))).kind).toBe('notFound');
    expect(await shown()).toEqual([expect.stringMatching(`^To clean up: +container: removal ${id}, tried`)]);
    const again = await pods.start(pod, config);
    expect(again).not.toBe(id);
    expect(await pods.ask(again, 'echo on')).toBe('on');
    await wrappers.runc.plan();
    // A restart does not wait as long as the tries before would have.
    await crash();
    await until('it is done', async () => (await shown()).length === 0, 40_000);
    expect((await pods.status(again)).state).toBe('CONTAINER_RUNNING');
  });
});
