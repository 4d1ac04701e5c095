import { describe, expect, it } from 'vitest';
import { filterContainers, filterSandboxes } from '../../../cri/mapping/filters.ts';
import type { ContainerFilter } from '../../../proto/gen/runtime/v1/ContainerFilter.ts';
import type { PodSandboxFilter } from '../../../proto/gen/runtime/v1/PodSandboxFilter.ts';
import { containerConfig, sandboxConfig } from '../spec/configs.ts';
import { received } from './messages.ts';
import { container, sandbox } from './records.ts';

const exit = { code: 0, finishedAt: 2n, reason: 'Completed', message: '' };
const labels = (entries: Record<string, string>) => ({ labels: entries });

describe('filterSandboxes', () => {
  const all = [
    sandbox({ id: 'ready', config: sandboxConfig(labels({ app: 'web', tier: 'a' })) }),
    sandbox({ id: 'stopped', stoppedAt: 5n, config: sandboxConfig(labels({ app: 'web' })) }),
    sandbox({ id: 'plain' }),
    sandbox({ id: 'half', phase: 'creating', config: sandboxConfig(labels({ app: 'web' })) }),
    sandbox({ id: 'going', phase: 'removing', config: sandboxConfig(labels({ app: 'web' })) }),
  ];
  it.each<[PodSandboxFilter | null, string[]]>([
    [null, ['ready', 'stopped', 'plain']],
    [{}, ['ready', 'stopped', 'plain']],
    [{ id: 'stopped' }, ['stopped']],
    [{ id: 'half' }, []],
    [{ id: 'going' }, []],
    [{ id: 'rea' }, []],
    [{ state: { state: 'SANDBOX_READY' } }, ['ready', 'plain']],
    [{ state: { state: 'SANDBOX_NOTREADY' } }, ['stopped']],
    [{ label_selector: { app: 'web' } }, ['ready', 'stopped']],
    [{ label_selector: { app: 'web', tier: 'a' } }, ['ready']],
    [{ label_selector: { app: 'we' } }, []],
    [{ label_selector: { app: '' } }, []],
    [{ label_selector: { toString: '' } }, []],
    [{ id: 'ready', state: { state: 'SANDBOX_NOTREADY' } }, []],
    [{ id: 'ready', state: { state: 'SANDBOX_READY' }, label_selector: { tier: 'a' } }, ['ready']],
  ])('lets through %j', (filter, ids) => {
    const got = filterSandboxes(all.values(), received('ListPodSandbox', { filter }).filter);
    expect(got.map(({ id }) => id)).toEqual(ids);
  });
});

describe('filterContainers', () => {
  const all = [
    container({ id: 'created', config: containerConfig(labels({ app: 'web' })) }),
    container({ id: 'running', startedAt: 1n, sandboxId: 'sb2' }),
    container({ id: 'exited', startedAt: 1n, exit, config: containerConfig(labels({ app: 'web', v: '' })) }),
    container({ id: 'half', phase: 'creating' }),
    container({ id: 'going', phase: 'removing', startedAt: 1n, exit }),
  ];
  it.each<[ContainerFilter | null, string[]]>([
    [null, ['created', 'running', 'exited']],
    [{}, ['created', 'running', 'exited']],
    [{ id: 'running' }, ['running']],
    [{ id: 'half' }, []],
    [{ pod_sandbox_id: 'sb1' }, ['created', 'exited']],
    [{ pod_sandbox_id: 'sb3' }, []],
    [{ state: { state: 'CONTAINER_CREATED' } }, ['created']],
    [{ state: { state: 'CONTAINER_RUNNING' } }, ['running']],
    [{ state: { state: 'CONTAINER_EXITED' } }, ['exited']],
    [{ state: { state: 'CONTAINER_UNKNOWN' } }, []],
    [{ label_selector: { app: 'web' } }, ['created', 'exited']],
    [{ label_selector: { app: 'web', v: '' } }, ['exited']],
    [{ id: 'created', pod_sandbox_id: 'sb2' }, []],
    [
      { pod_sandbox_id: 'sb1', label_selector: { app: 'web' }, state: { state: 'CONTAINER_EXITED' } },
      ['exited'],
    ],
  ])('lets through %j', (filter, ids) => {
    const got = filterContainers(all.values(), received('ListContainers', { filter }).filter);
    expect(got.map(({ id }) => id)).toEqual(ids);
  });

  it('takes the filter of stats, which has no state', () => {
    const filter = { id: '', pod_sandbox_id: 'sb1', label_selector: { app: 'web' } };
    expect(filterContainers(all, filter).map(({ id }) => id)).toEqual(['created', 'exited']);
  });
});
