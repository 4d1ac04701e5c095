import type { ContainerRecord } from '../../../src/container/record.ts';
import type { SandboxRecord } from '../../../src/sandbox/record.ts';
import { containerConfig, sandboxConfig } from '../spec/configs.ts';

/** The record of a created container. */
export function container(over: Partial<ContainerRecord> = {}): ContainerRecord {
  return {
    id: 'c1',
    sandboxId: 'sb1',
    config: containerConfig(),
    imageId: 'sha256:1',
    imageVolumes: [],
    createdAt: 1_700_000_000_000_000_001n,
    phase: 'live',
    logPath: '/var/log/pods/web/app/0.log',
    cgroup: { path: '/p/c1', parent: '/p', cgroupsPath: '/p/c1' },
    stopSignal: 'SIGTERM',
    resources: {},
    ...over,
  };
}

/** The record of a ready sandbox. */
export function sandbox(over: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    id: 'sb1',
    config: sandboxConfig(),
    runtimeHandler: '',
    createdAt: 1_700_000_000_000_000_001n,
    phase: 'live',
    bootId: 'boot',
    cgroup: { path: '/p/sb1', parent: '/p', cgroupsPath: '/p/sb1' },
    madeCgroups: [],
    ips: ['10.0.0.2'],
    ...over,
  };
}
