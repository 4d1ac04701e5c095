import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Metric__Output } from '../../proto/gen/runtime/v1/Metric.ts';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { callRaw, IDLE, OWN_PID, Pods, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const descriptors = async () => {
  const answer = await berthd.client.runtime('ListMetricDescriptors', {});
  return new Map(answer.descriptors.map((d) => [d.name, d]));
};
const podMetrics = async () => (await berthd.client.runtime('ListPodSandboxMetrics', {})).pod_metrics;
/** A series' labels by name. */
const labelsOf = (metric: Metric__Output, keys: readonly string[]) =>
  Object.fromEntries(keys.map((key, i) => [key, metric.label_values[i]]));

describe('ListPodSandboxMetrics', () => {
  it('tells of each pod and container what the kernel does, with all labels of cAdvisor', async () => {
    const known = await descriptors();
    const pod = await pods.run({ linux: { cgroup_parent: `${berthd.cgroupParent}/pod` } });
    const resources = { memory_limit_in_bytes: 64 << 20, cpu_quota: 50_000, cpu_period: 100_000 };
    const id = await pods.start(
      pod,
      sh('dd if=/dev/urandom of=/file bs=1M count=3 2>/dev/null; exec 3</file; exec sleep 100000', {
        linux: { resources, security_context: OWN_PID },
        image: { image: BUSYBOX, user_specified_image: 'busybox:1' },
      }),
    );
    await until('it sleeps', async () => (await pods.ask(id, 'cat /proc/1/comm')) === 'sleep');
    const [one, ...others] = await podMetrics();
    expect(others).toEqual([]);
    expect(one?.pod_sandbox_id).toBe(pod.id);
    expect(one?.container_metrics.map(({ container_id }) => container_id)).toEqual([id]);
    const metrics = one?.container_metrics[0]?.metrics ?? [];
    // As the kubelet does, which drops a sample that fits no descriptor.
    for (const metric of [...metrics, ...(one?.metrics ?? [])]) {
      const keys = known.get(metric.name)?.label_keys;
      expect(keys, metric.name).toHaveLength(metric.label_values.length);
      expect(metric.value, metric.name).not.toBeNull();
      expect(Math.abs(Number(BigInt(metric.timestamp) / 1_000_000n) - Date.now())).toBeLessThan(10_000);
    }
    const { cgroup } = await pods.info('container', id);
    const name = pod.config.metadata?.name;
    const { metadata } = await pods.status(id);
    const value = (family: string, own: Record<string, string> = {}) => {
      const keys = known.get(family)?.label_keys ?? [];
      const found = metrics.filter((metric) => {
        const labels = labelsOf(metric, keys);
        return metric.name === family && Object.entries(own).every(([k, v]) => labels[k] === v);
      });
      expect(found, family).toHaveLength(1);
      expect(labelsOf(found[0] as Metric__Output, keys)).toMatchObject({
        id: cgroup,
        name: id,
        image: 'busybox:1',
        container: metadata?.name,
        pod: name,
        namespace: 'default',
      });
      return Number(found[0]?.value?.value);
    };
    expect(value('container_spec_memory_limit_bytes')).toBe(64 << 20);
    expect(value('container_spec_cpu_quota')).toBe(50_000);
    expect(value('container_memory_usage_bytes')).toBeGreaterThan(1 << 20);
    expect(value('container_memory_max_usage_bytes')).toBeGreaterThan(3 << 20);
    expect(value('container_memory_max_usage_bytes')).toBeLessThanOrEqual(64 << 20);
    expect(value('container_processes')).toBe(1);
    expect(value('container_threads')).toBe(1);
    // stdio and what the shell has opened.
    expect(value('container_file_descriptors')).toBe(4);
    expect(value('container_fs_usage_bytes')).toBeGreaterThanOrEqual(3 << 20);
    expect(value('container_fs_limit_bytes')).toBeGreaterThan(1 << 30);
    expect(
      value('container_memory_failures_total', { failure_type: 'pgfault', scope: 'container' }),
    ).toBeGreaterThan(100);
    expect(value('container_cpu_cfs_periods_total')).toBeGreaterThan(0);
    expect(Math.abs(value('container_start_time_seconds') - Date.now() / 1000)).toBeLessThan(30);
    expect(value('container_oom_events_total')).toBe(0);
    const limits = readFileSync(`/proc/${await pods.pid('container', id)}/limits`, 'utf8');
    expect(value('container_ulimits_soft', { ulimit: 'max_open_files' })).toBe(
      Number(/Max open files\s+(\d+)/.exec(limits)?.[1]),
    );
    await until('sockets are counted', async () =>
      (await podMetrics())[0]?.container_metrics[0]?.metrics.some((m) => m.name === 'container_sockets'),
    );
  });

  it('tells of the pod its cgroup and its interfaces', async () => {
    const known = await descriptors();
    const pod = await pods.run({ linux: { cgroup_parent: `${berthd.cgroupParent}/pod` } });
    const id = await pods.start(pod, IDLE);
    await pods.ask(id, "ping -c 1 -w 5 $(ip route | awk '/default/ {print $3}') >/dev/null");
    const [one] = await podMetrics();
    const find = (family: string) =>
      one?.metrics
        .filter((m) => m.name === family)
        .map((m) => ({ ...labelsOf(m, known.get(family)?.label_keys ?? []), value: Number(m.value?.value) }));
    expect(find('container_network_receive_bytes_total')).toEqual([
      {
        ...{ container: 'POD', pod: pod.config.metadata?.name, namespace: 'default', interface: 'eth0' },
        ...{ name: pod.id, image: '/usr/bin/catatonit', id: (await pods.info('pod', pod.id)).cgroup },
        value: expect.toSatisfy((v: number) => v > 90),
      },
    ]);
    expect(find('container_processes')).toEqual([
      {
        ...{ container: '', pod: pod.config.metadata?.name, namespace: 'default', name: '', image: '' },
        id: `${berthd.cgroupParent}/pod`,
        value: 2,
      },
    ]);
  });

  it('comes in pieces, too, and without what is not there', async () => {
    const [pod, other] = [await pods.run(), await pods.run()];
    await pods.runToEnd(pod, sh('exit 0'));
    const whole = await podMetrics();
    const pieces = (await callRaw(berthd, 'StreamPodSandboxMetrics', {})) as {
      pod_sandbox_metrics: typeof whole;
    }[];
    expect(pieces.flatMap((p) => p.pod_sandbox_metrics.map((m) => m.pod_sandbox_id))).toEqual([
      pod.id,
      other.id,
    ]);
    expect(whole[0]?.container_metrics).toEqual([]);
    // A cgroup that several pods share is none of theirs.
    expect(new Set(whole[0]?.metrics.map(({ name }) => name.replace(/_(receive|transmit)_.*/, '')))).toEqual(
      new Set(['container_network']),
    );
    await berthd.client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id });
    expect((await podMetrics()).map((m) => m.pod_sandbox_id)).toEqual([other.id]);
  });
});
