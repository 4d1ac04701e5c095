import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Metric__Output } from '../../proto/gen/runtime/v1/Metric.ts';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { callRaw, IDLE, OWN_PID, Pods, refusal, SHARED_PID, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start({ tables: '[metrics]\nenabled = true\nport = 0\n' });
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
    expect(value('container_sockets')).toBe(0);
  });

  it('tells of the pod its cgroup and its interfaces', async () => {
    const known = await descriptors();
    const pod = await pods.run({
      linux: { cgroup_parent: `${berthd.cgroupParent}/pod`, security_context: SHARED_PID },
    });
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

/** Lines of an exposition by series; checks the format on the way. */
function parse(text: string): Map<string, number> {
  const found = new Map<string, number>();
  const seen = new Set<string>();
  let family = '';
  for (const line of text.trimEnd().split('\n')) {
    const head = /^# (HELP|TYPE) ([a-z_0-9]+) (.+)$/.exec(line);
    if (head !== null) {
      const [, kind, name = ''] = head;
      // All lines of a name are together, and begin with these two.
      if (kind === 'HELP') expect(seen.has(name), name).toBe(false);
      else expect(name).toBe(family);
      seen.add(name);
      family = name;
      continue;
    }
    const [, name = '', labels = '', value = ''] =
      /^([a-z_0-9]+)(\{(?:[a-z_]+="(?:[^"\\]|\\.)*",?)*\})? (\S+)$/.exec(line) ?? [];
    expect(name.replace(/_(bucket|sum|count)$/, family.endsWith('_seconds') ? '' : '$&'), line).toBe(family);
    expect(Number(value), line).not.toBeNaN();
    expect(found.has(name + labels), line).toBe(false);
    found.set(name + labels, Number(value));
  }
  return found;
}

describe('GET /metrics', () => {
  const scrape = async () => {
    const said = (await berthd.log()).split('\n').find((line) => line.includes('serving metrics'));
    const { port } = JSON.parse(said ?? '{}') as { port?: number };
    const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
    expect(answer.status).toBe(200);
    return parse(await answer.text());
  };

  it('has what berthd counts of itself', async () => {
    const before = await scrape();
    await berthd.client.runtime('Version', {});
    expect(
      (await refusal(berthd.client.runtime('ContainerStatus', { container_id: 'a'.repeat(64) }))).kind,
    ).toBe('notFound');
    const after = await scrape();
    const grown = (series: string) => (after.get(series) ?? 0) - (before.get(series) ?? 0);
    expect(grown('berth_rpc_duration_seconds_count{rpc="Version"}')).toBe(1);
    expect(grown('berth_rpc_duration_seconds_bucket{rpc="Version",le="+Inf"}')).toBe(1);
    expect(grown('berth_rpc_errors_total{rpc="ContainerStatus",code="NOT_FOUND"}')).toBe(1);
    expect(after.get('berth_rpcs_in_flight{rpc="Version"}')).toBe(0);
    expect(after.get('berth_network_ready')).toBe(1);
    expect(after.get('berth_images')).toBe(1);
    expect(after.get('process_resident_memory_bytes')).toBeGreaterThan(20e6);
  });

  it('has the series that CRI has, but with fractions of seconds', async () => {
    const pod = await pods.run({ linux: { cgroup_parent: `${berthd.cgroupParent}/pod` } });
    const id = await pods.start(pod, IDLE);
    const found = await scrape();
    expect(found.get('berth_sandboxes{state="ready"}')).toBe(1);
    expect(found.get('berth_containers{state="running"}')).toBe(1);
    const ofContainer = [...found].filter(([series]) => series.includes(`name="${id}"`));
    const seconds = ofContainer.find(([series]) =>
      series.startsWith('container_cpu_usage_seconds_total{'),
    )?.[1];
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThan(5);
    expect(Number.isInteger(seconds)).toBe(false);
    const keys = async (metrics: readonly Metric__Output[]) => {
      const known = await descriptors();
      return metrics.map((metric) => {
        const labels = labelsOf(metric, known.get(metric.name)?.label_keys ?? []);
        return `${metric.name}{${Object.entries(labels)
          .map(([k, v]) => `${k}="${v}"`)
          .join()}}`;
      });
    };
    const [one] = await podMetrics();
    const cri = await keys([...(one?.metrics ?? []), ...(one?.container_metrics[0]?.metrics ?? [])]);
    expect([...found.keys()].filter((series) => series.startsWith('container_')).sort()).toEqual(cri.sort());
  });
});
