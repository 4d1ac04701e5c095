import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Described, describeContainer, describeRuntime } from '../../src/cadvisor/answers.ts';
import { cgroupLeaf } from '../../src/cadvisor/cgroup-leaf.ts';
import { fakeServices } from './recover/services.ts';
import { containerConfig, sandboxConfig } from './spec/configs.ts';

let fake: ReturnType<typeof fakeServices>;
let s: Described;
beforeEach(() => {
  fake = fakeServices();
  const config = { pause: '/usr/bin/catatonit' };
  s = Object.assign(Object.create(fake.s), { config, cgroupDriver: 'systemd' });
  fake.addSandbox({
    ips: ['10.0.0.2', 'fd00::2'],
    pause: { pid: 41, startTime: 1n },
    config: sandboxConfig({
      metadata: { name: 'web', namespace: 'shop', uid: 'u1', attempt: 0 },
      labels: { app: 'web' },
    }),
  });
});
afterEach(() => fake.close());

it('says who it is, and no storage driver that cAdvisor would look for', () => {
  expect(describeRuntime(s)).toEqual({
    storage_driver: 'berth',
    storage_root: fake.s.paths.root,
    cgroup_driver: 'systemd',
  });
});

it('tells of a container what its labels, its pod and its process are', () => {
  fake.addContainer({
    id: 'c1',
    init: { pid: 42, startTime: 1n },
    createdAt: 1_700_000_000_123_456_789n,
    config: containerConfig({
      metadata: { name: 'app', attempt: 1 },
      labels: { 'io.kubernetes.pod.uid': 'u1', tier: 'front' },
      annotations: { 'io.kubernetes.container.restartCount': '1' },
    }),
  });
  const labels = {
    'io.kubernetes.pod.name': 'web',
    'io.kubernetes.pod.namespace': 'shop',
    'io.kubernetes.pod.uid': 'u1',
    'io.kubernetes.container.name': 'app',
    tier: 'front',
  };
  expect(describeContainer(s, 'c1')).toMatchObject({
    name: 'c1',
    pid: 42,
    created_time: 1_700_000_000_123_456_789n,
    labels,
    annotations: { 'io.kubernetes.container.restartCount': '1' },
    root: path.join(fake.s.paths.container('c1').upper),
    ip_address: '10.0.0.2',
    ip_addresses: ['10.0.0.2', 'fd00::2'],
  });
  fake.s.containers.update('c1', { exit: { code: 0, finishedAt: 9n, reason: 'Completed', message: '' } });
  expect(describeContainer(s, 'c1')?.pid).toBe(0);
  expect(describeContainer(s, 'c2')).toBeUndefined();
});

it('tells of a pause container that it is the one with the pod’s network', () => {
  expect(describeContainer(s, 'sb1')).toMatchObject({
    name: 'sb1',
    pid: 41,
    image: 'catatonit',
    labels: { app: 'web', 'io.kubernetes.container.name': 'POD', 'io.kubernetes.pod.name': 'web' },
  });
  fake.s.sandboxes.update('sb1', { stoppedAt: 9n });
  expect(describeContainer(s, 'sb1')?.pid).toBe(0);
});

it('names cgroups for it only where it is told of them', () => {
  const cadvisor = { socket: '/x' };
  expect(cgroupLeaf({ cadvisor: { ...cadvisor, enabled: true } })).toBe('crio');
  expect(cgroupLeaf({ cadvisor: { ...cadvisor, enabled: false } })).toBeUndefined();
});
