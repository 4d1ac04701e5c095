import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { LinuxContainerResources } from '../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import { Berthd } from '../support/berthd.ts';
import { IDLE, OWN_PID, Pods, refusal, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const MIB = 1 << 20;
const limited = (resources: LinuxContainerResources) => ({ linux: { resources, security_context: OWN_PID } });
const update = (container_id: string, linux: LinuxContainerResources) =>
  berthd.client.runtime('UpdateContainerResources', { container_id, linux });
/** A file of a cgroup on the host. */
const file = (controller: string, cgroup: unknown, name: string) =>
  readFileSync(`/sys/fs/cgroup/${controller}${String(cgroup)}/${name}`, 'utf8').trim();

describe('resizing a container in place', () => {
  it('shows in its status exactly what was sent, and in the kernel’s files, also after a restart', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, {
      ...IDLE,
      ...limited({
        cpu_shares: 102,
        cpu_quota: 10_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 64 * MIB,
      }),
    });
    const { cgroup } = await pods.info('container', id);
    // Odd numbers, which a detour over another scale would change.
    const sent = { cpu_shares: 333, cpu_quota: 33_333, memory_limit_in_bytes: 100 * MIB, oom_score_adj: 777 };
    await update(id, sent);
    const expected = { cpu_shares: '333', cpu_quota: '33333', cpu_period: '100000', oom_score_adj: '777' };
    const check = async () => {
      expect((await pods.status(id)).resources?.linux).toMatchObject({
        ...expected,
        memory_limit_in_bytes: String(100 * MIB),
      });
      expect(file('cpu', cgroup, 'cpu.shares')).toBe('333');
      expect(file('cpu', cgroup, 'cpu.cfs_quota_us')).toBe('33333');
      expect(file('memory', cgroup, 'memory.limit_in_bytes')).toBe(String(100 * MIB));
      expect(await pods.ask(id, 'cat /proc/1/oom_score_adj')).toBe('777');
    };
    await check();
    await berthd.stop('SIGKILL');
    await berthd.start();
    await check();
    await update(id, { cpu_shares: 1024 });
    expect((await pods.status(id)).resources?.linux).toMatchObject({
      ...expected,
      cpu_shares: '1024',
      memory_limit_in_bytes: String(100 * MIB),
    });
  });

  it('refuses what is in use or makes no sense, and leaves all as it was', async () => {
    const pod = await pods.run();
    const id = await pods.start(
      pod,
      sh(
        'dd if=/dev/zero bs=40M count=1 2>/dev/null | sleep 100000',
        limited({ memory_limit_in_bytes: 80 * MIB }),
      ),
    );
    const { cgroup } = await pods.info('container', id);
    await until('memory is in use', () => Number(file('memory', cgroup, 'memory.usage_in_bytes')) > 40 * MIB);
    const before = (await pods.status(id)).resources;
    for (const [linux, kind] of [
      [{ memory_limit_in_bytes: 20 * MIB }, 'precondition'],
      [{ memory_limit_in_bytes: 20 * MIB, oom_score_adj: 500 }, 'precondition'],
      [{ oom_score_adj: 1001 }, 'invalid'],
      [{ cpu_quota: 1 }, 'invalid'],
      [{ unified: { 'memory.high': '1' } }, 'invalid'],
    ] as const)
      expect((await refusal(update(id, linux))).kind, JSON.stringify(linux)).toBe(kind);
    expect((await pods.status(id)).resources).toEqual(before);
    expect(file('memory', cgroup, 'memory.limit_in_bytes')).toBe(String(80 * MIB));
    expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
  });
});

describe('resizing a pod', () => {
  it('is kept for who asks, also after a restart, and leaves the pod’s cgroup to the kubelet', async () => {
    const cgroup_parent = `${berthd.cgroupParent}/pod`;
    const pod = await pods.run({
      linux: { cgroup_parent, resources: { cpu_shares: 100, memory_limit_in_bytes: 64 * MIB } },
    });
    // Its first container brings the cgroup along that the kubelet would have made.
    await pods.start(pod);
    const limit = file('memory', cgroup_parent, 'memory.limit_in_bytes');
    await berthd.client.runtime('UpdatePodSandboxResources', {
      pod_sandbox_id: pod.id,
      overhead: { memory_limit_in_bytes: 8 * MIB },
      resources: { cpu_shares: 200 },
    });
    await berthd.stop('SIGKILL');
    await berthd.start();
    const { config } = (await pods.info('pod', pod.id)) as { config: { linux: Record<string, unknown> } };
    expect(config.linux).toMatchObject({
      resources: { cpu_shares: '200', memory_limit_in_bytes: String(64 * MIB) },
      overhead: { memory_limit_in_bytes: String(8 * MIB) },
    });
    expect(file('memory', cgroup_parent, 'memory.limit_in_bytes')).toBe(limit);
    // A retry of what made the pod is still that pod's.
    const request = { config: pod.config, runtime_handler: '' };
    expect((await berthd.client.runtime('RunPodSandbox', request)).pod_sandbox_id).toBe(pod.id);
    const gone = berthd.client.runtime('UpdatePodSandboxResources', { pod_sandbox_id: 'f'.repeat(64) });
    expect((await refusal(gone)).kind).toBe('notFound');
  });
});

describe('quality of service, as the kubelet lays it out', () => {
  it('runs each class in its part of the tree with its score, and memory runs out where the limit is', async () => {
    const root = `${berthd.cgroupParent}/kubepods`;
    const classes = {
      guaranteed: { parent: `${root}/podg`, score: -997, shares: 1024 },
      burstable: { parent: `${root}/burstable/podb`, score: 900, shares: 512 },
      besteffort: { parent: `${root}/besteffort/pode`, score: 1000, shares: 2 },
    };
    const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
    const running: string[] = [];
    for (const { parent, score, shares } of Object.values(classes)) {
      const pod = await pods.run({ linux: { cgroup_parent: parent } });
      const resources = { cpu_shares: shares, oom_score_adj: score };
      const id = await pods.start(pod, { ...IDLE, ...limited(resources) });
      running.push(id);
      expect((await pods.info('container', id)).cgroup).toBe(`${parent}/${id}`);
      // Without a pause process a pod has the cgroup that the kubelet makes, and no other.
      expect((await pods.info('pod', pod.id)).cgroup).toBe(parent);
      expect(file('cpu', `${parent}/${id}`, 'cpu.shares')).toBe(String(shares));
      const said = Number(await pods.ask(id, 'cat /proc/1/oom_score_adj'));
      // Without CAP_SYS_RESOURCE nobody gets below the daemon's own.
      if (score < own) expect([score, own]).toContain(said);
      else expect(said).toBe(score);
    }
    const burstable = await pods.run({
      linux: { cgroup_parent: classes.burstable.parent.replace('podb', 'pod2') },
    });
    const greedy = await pods.runToEnd(
      burstable,
      sh('a=x; while :; do a=$a$a; done', limited({ memory_limit_in_bytes: 32 * MIB, oom_score_adj: 900 })),
    );
    expect(greedy).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
    for (const id of running) expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
  });

  it('lets the least of them die when the memory of all pods runs out', async () => {
    const root = `${berthd.cgroupParent}/kubepods`;
    /** Its first process holds so much memory, and keeps it: nobody reads what it writes. */
    const holder = (mib: number, score: number) =>
      sh(
        `mkfifo /pipe; sleep 100000 </pipe & exec dd if=/dev/zero of=/pipe bs=${mib}M count=1`,
        limited({ oom_score_adj: score }),
      );
    const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
    const start = async (parent: string, mib: number, score: number) => {
      const pod = await pods.run({ linux: { cgroup_parent: `${root}/${parent}` } });
      return { id: await pods.start(pod, holder(mib, score)), parent: `${root}/${parent}` };
    };
    const holds = ({ id, parent }: { id: string; parent: string }, mib: number) =>
      until(
        'it holds its memory',
        () => Number(file('memory', `${parent}/${id}`, 'memory.usage_in_bytes')) > mib * MIB,
      );
    const best = await start('besteffort/pode', 40, 1000);
    const burstable = await start('burstable/podb', 20, Math.max(own, 500));
    await Promise.all([holds(best, 40), holds(burstable, 20)]);
    // The node has less than the three want, and enough for the two that matter more.
    for (const name of ['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes']) {
      writeFileSync(`/sys/fs/cgroup/memory${root}/${name}`, String(110 * MIB));
    }
    const guaranteed = await start('podg', 60, own);
    expect(await pods.ended(best.id)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
    await holds(guaranteed, 60);
    for (const { id } of [burstable, guaranteed]) {
      expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
    }
  });
});
