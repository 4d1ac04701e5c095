import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import type { Subject } from './subject.ts';

/** The label that all pods of the bench have. */
export const BENCH_LABEL = { 'berth.run/bench': 'true' };

/** A running pod of one container. */
export interface LivePod {
  sandbox: string;
  container: string;
  /** Absolute; of the container's log. */
  log: string;
  /** Of its logs and volumes. */
  directory: string;
}

/** Milliseconds that each call took. */
export type CallTimes = Record<string, number>;

/** What Kubernetes hides of /proc and /sys, as the kubelet asks. */
const MASKED = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/kcore',
  '/proc/keys',
  '/proc/timer_list',
  '/sys/firmware',
];
const READONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];
const NAMESPACES = { namespace_options: { network: 'POD', pid: 'CONTAINER', ipc: 'POD' } } as const;
const IDLE = ['sleep', '2147483647'];

/**
 * Brings a pod to RUNNING by the three calls of the kubelet, which asks for the status after them.
 *
 * @param change replaces members of the container's configuration
 */
export async function startPod(
  subject: Subject,
  change: ContainerConfig = {},
): Promise<{ pod: LivePod; times: CallTimes }> {
  const { client } = subject;
  const name = `bench-${randomBytes(5).toString('hex')}`;
  const directory = path.join(subject.directory, name);
  // The kubelet makes directory and files before it calls.
  await mkdir(path.join(directory, 'logs', 'main'), { recursive: true });
  await mkdir(path.join(directory, 'token'));
  for (const file of ['hosts', 'termination-log']) await writeFile(path.join(directory, file), '');
  const sandboxConfig = sandbox(subject, name, directory);
  const config = { ...container(subject, name, directory), ...change };
  const times: CallTimes = {};
  const began = performance.now();
  const run = timed(times, 'RunPodSandbox', client.runtime('RunPodSandbox', { config: sandboxConfig }));
  const { pod_sandbox_id } = await run;
  const request = { pod_sandbox_id, config, sandbox_config: sandboxConfig };
  const { container_id } = await timed(times, 'CreateContainer', client.runtime('CreateContainer', request));
  await timed(times, 'StartContainer', client.runtime('StartContainer', { container_id }));
  const { status } = await client.runtime('ContainerStatus', { container_id });
  times.start = performance.now() - began;
  if (status?.state !== 'CONTAINER_RUNNING') throw new Error(`${subject.name}: a pod is not RUNNING`);
  const log = path.join(directory, 'logs', config.log_path ?? '');
  return { pod: { sandbox: pod_sandbox_id, container: container_id, log, directory }, times };
}

/** Stops and removes a pod by the calls that the kubelet makes, without grace. */
export async function endPod({ client }: Subject, pod: LivePod): Promise<CallTimes> {
  const times: CallTimes = {};
  const [container_id, pod_sandbox_id] = [pod.container, pod.sandbox];
  const call = async (name: string, answer: Promise<unknown>) => void (await timed(times, name, answer));
  await call('StopContainer', client.runtime('StopContainer', { container_id, timeout: 0 }));
  await call('StopPodSandbox', client.runtime('StopPodSandbox', { pod_sandbox_id }));
  await call('RemoveContainer', client.runtime('RemoveContainer', { container_id }));
  await call('RemovePodSandbox', client.runtime('RemovePodSandbox', { pod_sandbox_id }));
  await rm(pod.directory, { recursive: true, force: true });
  return times;
}

/** Does `work` `count` times, `parallel` at a time. A failure ends the others after what they are at. */
export async function atOnce(count: number, parallel: number, work: () => Promise<void>): Promise<void> {
  let left = count;
  const worker = async () => {
    while (left > 0) {
      left--;
      await work().catch((e: unknown) => {
        left = 0;
        throw e;
      });
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: Math.min(parallel, count) }, worker));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
}

async function timed<T>(times: CallTimes, name: string, answer: Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await answer;
  times[name] = performance.now() - began;
  return result;
}

function sandbox({ cgroupParent }: Subject, name: string, directory: string): PodSandboxConfig {
  return {
    metadata: { name, namespace: 'bench', uid: name, attempt: 0 },
    hostname: name,
    log_directory: path.join(directory, 'logs'),
    dns_config: { servers: ['10.96.0.10'], searches: ['bench.svc.cluster.local'], options: ['ndots:5'] },
    labels: { ...BENCH_LABEL, 'io.kubernetes.pod.name': name, 'io.kubernetes.pod.namespace': 'bench' },
    annotations: {
      'kubernetes.io/config.source': 'api',
      'kubernetes.io/config.seen': '2026-01-01T00:00:00Z',
    },
    linux: {
      cgroup_parent: cgroupParent,
      security_context: { ...NAMESPACES, seccomp: { profile_type: 'RuntimeDefault' } },
    },
  };
}

function container({ image }: Subject, name: string, directory: string): ContainerConfig {
  return {
    metadata: { name: 'main', attempt: 0 },
    image: { image, user_specified_image: image },
    command: IDLE,
    envs: [
      { key: 'KUBERNETES_SERVICE_HOST', value: Buffer.from('10.96.0.1') },
      { key: 'KUBERNETES_SERVICE_PORT', value: Buffer.from('443') },
    ],
    mounts: [
      { container_path: '/etc/hosts', host_path: path.join(directory, 'hosts') },
      { container_path: '/dev/termination-log', host_path: path.join(directory, 'termination-log') },
      {
        container_path: '/var/run/secrets/kubernetes.io/serviceaccount',
        host_path: path.join(directory, 'token'),
        readonly: true,
      },
    ],
    labels: { 'io.kubernetes.container.name': 'main', 'io.kubernetes.pod.name': name },
    annotations: {
      'io.kubernetes.container.restartCount': '0',
      'io.kubernetes.container.terminationMessagePath': '/dev/termination-log',
      'io.kubernetes.pod.terminationGracePeriod': '30',
    },
    log_path: 'main/0.log',
    linux: {
      resources: { cpu_shares: '102', cpu_period: '100000', memory_limit_in_bytes: String(64 << 20) },
      security_context: {
        ...NAMESPACES,
        masked_paths: MASKED,
        readonly_paths: READONLY,
        seccomp: { profile_type: 'RuntimeDefault' },
      },
    },
  };
}
