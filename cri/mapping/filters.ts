import type { ContainerFilter__Output } from '../../proto/gen/runtime/v1/ContainerFilter.ts';
import type { ContainerStatsFilter__Output } from '../../proto/gen/runtime/v1/ContainerStatsFilter.ts';
import type { PodSandboxFilter__Output } from '../../proto/gen/runtime/v1/PodSandboxFilter.ts';
import type { PodSandboxStatsFilter__Output } from '../../proto/gen/runtime/v1/PodSandboxStatsFilter.ts';
import type { ContainerRecord } from '../../src/container/record.ts';
import { isReady, type SandboxRecord } from '../../src/sandbox/record.ts';
import { toState } from './container.ts';

/** The listed sandboxes that a filter lets through; what is being made or removed is not listed. */
export function filterSandboxes(
  all: Iterable<SandboxRecord>,
  filter: PodSandboxFilter__Output | PodSandboxStatsFilter__Output | null,
): SandboxRecord[] {
  const { id = '', label_selector: labels = {} } = filter ?? {};
  const state = filter !== null && 'state' in filter ? filter.state : null;
  return [...all].filter(
    (s) =>
      s.phase === 'live' &&
      (id === '' || s.id === id) &&
      (state === null || state.state === (isReady(s) ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY')) &&
      hasLabels(s.config.labels, labels),
  );
}

/** The same for containers. */
export function filterContainers(
  all: Iterable<ContainerRecord>,
  filter: ContainerFilter__Output | ContainerStatsFilter__Output | null,
): ContainerRecord[] {
  const { id = '', pod_sandbox_id: sandboxId = '', label_selector: labels = {} } = filter ?? {};
  const state = filter !== null && 'state' in filter ? filter.state : null;
  return [...all].filter(
    (c) =>
      c.phase === 'live' &&
      (id === '' || c.id === id) &&
      (sandboxId === '' || c.sandboxId === sandboxId) &&
      (state === null || state.state === toState(c)) &&
      hasLabels(c.config.labels, labels),
  );
}

function hasLabels(labels: Record<string, string>, wanted: Record<string, string>): boolean {
  return Object.entries(wanted).every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);
}
