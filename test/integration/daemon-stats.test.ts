import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { callRaw, IDLE, OWN_PID, type Pod, Pods, refusal, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start({ tables: '[stats]\ninterval = 1\n' });
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** A pod with a cgroup of its own, as the kubelet makes one. */
let count = 0;
const ownPod = (more = {}) =>
  pods.run({ ...more, linux: { cgroup_parent: `${berthd.cgroupParent}/pod${count++}` } });
const number = (v: { value: string } | null | undefined) => Number(v?.value);
const podStats = async ({ id }: Pod) => {
  const { stats } = await berthd.client.runtime('PodSandboxStats', { pod_sandbox_id: id });
  if (stats?.linux == null) throw new Error('no stats');
  return { ...stats, linux: stats.linux };
};
/** Says when 40 MiB are in use, and keeps them. */
const holding = sh('dd if=/dev/zero bs=40M count=1 2>/dev/null | sleep 100000', {
  linux: { resources: { memory_limit_in_bytes: 100 << 20 }, security_context: OWN_PID },
});

describe('PodSandboxStats', () => {
  it('tells what the whole pod uses, from the pod’s cgroup, and what each container does', async () => {
    const pod = await ownPod({ labels: { app: 'x' }, annotations: { a: 'b' } });
    const id = await pods.start(pod, holding);
    await pods.start(pod, IDLE);
    const { id: ended } = await pods.runToEnd(pod, sh('exit 0'));
    await until(
      'memory is in use',
      async () => number((await podStats(pod)).linux.memory?.usage_bytes) > 40 << 20,
    );
    const before = BigInt(Date.now()) * 1_000_000n;
    const { attributes, linux } = await podStats(pod);
    expect(attributes).toMatchObject({ id: pod.id, metadata: pod.config.metadata, labels: { app: 'x' } });
    for (const part of [linux.cpu, linux.memory, linux.network, linux.process]) {
      expect(BigInt(part?.timestamp ?? 0)).toBeGreaterThan(before - 5_000_000n);
    }
    const parts = linux.containers.map(({ attributes: a }) => a?.id);
    expect(parts).toContain(id);
    expect(parts).not.toContain(ended);
    expect(parts).toHaveLength(2);
    // The pod's counters include what the ended container used.
    const sum = (of: (c: (typeof linux.containers)[number]) => number) =>
      linux.containers.reduce((total, c) => total + of(c), 0);
    expect(number(linux.cpu?.usage_core_nano_seconds)).toBeGreaterThan(
      sum((c) => number(c.cpu?.usage_core_nano_seconds)),
    );
    expect(number(linux.memory?.rss_bytes)).toBeGreaterThan(39 << 20);
    expect(number(linux.memory?.working_set_bytes)).toBeLessThan(60 << 20);
    // dd, sleep and their shell; sleep.
    expect(number(linux.process?.process_count)).toBeGreaterThanOrEqual(4);
    expect(number(linux.process?.process_count)).toBeLessThan(9);
    expect(linux.memory?.available_bytes).toBeNull();
  });

  it('tells each interface’s traffic, as the pod itself sees it', async () => {
    const pod = await ownPod();
    const id = await pods.start(pod, IDLE);
    const read = async () => (await podStats(pod)).linux.network?.default_interface;
    const before = await read();
    expect(before?.name).toBe('eth0');
    const gateway = await pods.ask(id, "ip route | awk '/default/ {print $3}'");
    await pods.ask(id, `ping -c 3 -s 1000 -i 0.2 -w 5 ${gateway} >/dev/null`);
    const after = await read();
    expect(number(after?.rx_bytes) - number(before?.rx_bytes)).toBeGreaterThan(3000);
    expect(number(after?.tx_bytes) - number(before?.tx_bytes)).toBeGreaterThan(3000);
    expect([number(after?.rx_errors), number(after?.tx_errors)]).toEqual([0, 0]);
    const { interfaces } = (await podStats(pod)).linux.network ?? { interfaces: [] };
    expect(interfaces.map(({ name }) => name)).toEqual(['eth0']);
    const [, bytes] = /eth0:\s*(\d+)/.exec(await pods.ask(id, 'cat /proc/net/dev')) ?? [];
    expect(Number(bytes)).toBeGreaterThanOrEqual(number(after?.rx_bytes));
    // Nothing of the daemon stays in the pod's network namespace.
    const own = readFileSync(`/proc/${berthd.pid}/net/dev`, 'utf8');
    expect(own).toContain(berthd.bridge);
  });

  it('has no traffic for a pod with the host’s network', async () => {
    const pod = await pods.run({
      hostname: '',
      linux: {
        security_context: { namespace_options: { network: 'NODE' } },
        cgroup_parent: `${berthd.cgroupParent}/host`,
      },
    });
    const { linux } = await podStats(pod);
    expect(linux.network).toBeNull();
    expect(number(linux.memory?.usage_bytes)).toBeGreaterThan(0);
  });

  it('adds up the parts of a pod that shares its parent cgroup with others', async () => {
    const [one, two] = [await pods.run(), await pods.run()];
    await pods.start(one, holding);
    await until('memory is in use', async () => {
      const { linux } = await podStats(one);
      return number(linux.memory?.usage_bytes) > 40 << 20;
    });
    const { linux } = await podStats(two);
    expect([linux.memory?.usage_bytes, linux.process?.process_count].map(number)).toEqual([0, 0]);
  });

  it('tells the CPU rate of the sampler’s interval, of pod and container alike, unasked', async () => {
    const pod = await ownPod();
    const quota = { cpu_quota: 20_000, cpu_period: 100_000 };
    const id = await pods.start(
      pod,
      sh('while :; do :; done', { linux: { resources: quota, security_context: OWN_PID } }),
    );
    // Half a second of a processor that it gets a fifth of: more than two intervals, in which nobody asks.
    const { cgroup } = await pods.info('container', id);
    const used = () => Number(readFileSync(`/sys/fs/cgroup/cpuacct${cgroup}/cpuacct.usage`, 'utf8'));
    await until('it has run', () => used() > 500_000_000);
    const { linux } = await podStats(pod);
    for (const cpu of [linux.cpu, linux.containers[0]?.cpu]) {
      expect(number(cpu?.usage_nano_cores)).toBeGreaterThan(50_000_000);
      expect(number(cpu?.usage_nano_cores)).toBeLessThan(300_000_000);
    }
    const again = await podStats(pod);
    expect(BigInt(again.linux.cpu?.timestamp ?? 0)).toBeGreaterThan(BigInt(linux.cpu?.timestamp ?? 0));
  });

  it('is refused for what is not there or not ready', async () => {
    const pod = await ownPod();
    const ask = (pod_sandbox_id: string) => berthd.client.runtime('PodSandboxStats', { pod_sandbox_id });
    expect((await refusal(ask('f'.repeat(64)))).kind).toBe('notFound');
    expect((await refusal(ask(''))).kind).toBe('invalid');
    await berthd.client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id });
    expect((await refusal(ask(pod.id))).kind).toBe('precondition');
    const { stats } = await berthd.client.runtime('ListPodSandboxStats', {});
    expect(stats).toEqual([]);
  });
});

describe('ListPodSandboxStats', () => {
  it('filters, and says the same in pieces', async () => {
    const one = await ownPod({ labels: { app: 'one' } });
    const two = await ownPod({ labels: { app: 'two' } });
    await pods.start(one);
    const list = async (filter: object) => {
      const { stats } = await berthd.client.runtime('ListPodSandboxStats', { filter });
      const pieces = (await callRaw(berthd, 'StreamPodSandboxStats', { filter })) as {
        pod_sandbox_stats: typeof stats;
      }[];
      const ids = (all: typeof stats) => all.map(({ attributes }) => attributes?.id).sort();
      expect(ids(pieces.flatMap((piece) => piece.pod_sandbox_stats))).toEqual(ids(stats));
      return ids(stats);
    };
    expect(await list({})).toEqual([one.id, two.id].sort());
    expect(await list({ id: two.id })).toEqual([two.id]);
    expect(await list({ label_selector: { app: 'one' } })).toEqual([one.id]);
    expect(await list({ label_selector: { app: 'three' } })).toEqual([]);
    const { stats } = await berthd.client.runtime('ListPodSandboxStats', {});
    expect(stats.find(({ attributes }) => attributes?.id === one.id)?.linux?.containers).toHaveLength(1);
  });

  it('goes on while containers and pods come and go', async () => {
    const steady = await ownPod();
    await pods.start(steady);
    let busy = true;
    const churn = (async () => {
      for (let i = 0; i < 4; i++) {
        const pod = await ownPod();
        await pods.start(pod, sh('exit 0'));
        await berthd.client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id });
        await berthd.client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id });
      }
      busy = false;
    })();
    while (busy) {
      const { stats } = await berthd.client.runtime('ListPodSandboxStats', {});
      for (const { attributes, linux } of stats) {
        expect(attributes?.metadata?.name).toMatch(/^pod-/);
        // The cgroups of the others are made hierarchy by hierarchy, with their first container.
        if (attributes?.id === steady.id) expect(linux?.cpu?.usage_core_nano_seconds).not.toBeNull();
        for (const c of linux?.containers ?? []) expect(c.memory?.usage_bytes).not.toBeNull();
      }
      expect(stats.some(({ attributes }) => attributes?.id === steady.id)).toBe(true);
    }
    await churn;
  });
});
