import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import { FAULT_POINTS, type FaultPoint } from '../../src/faults.ts';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { type FaultAction, FaultPlan } from '../support/faults.ts';
import { buildImage, layer } from '../support/images.ts';
import { leftovers } from '../support/leaks.ts';
import { containerConfig, Pods, refusal, SHARED_PID, until } from '../support/pods.ts';
import { type Registry, startRegistry } from '../support/registry.ts';

const ACTIONS: readonly FaultAction[] = ['error', 'crash', 'delay 100'];
/** Of one request: with the fault, and after it. */
const MAX_TRIES = 3;

interface Fault {
  point: FaultPoint;
  action: FaultAction;
}

let dir: string;
let plan: FaultPlan;
let berthd: Berthd;
let pods: Pods;
let registry: Registry;
const results: string[] = [];

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-faults-'));
  plan = new FaultPlan(dir);
  await plan.set([]);
  berthd = await Berthd.start({ env: plan.env });
  pods = new Pods(berthd);
  await berthd.importBusybox();
  registry = await startRegistry();
  const image = buildImage([
    await layer([{ name: 'a', content: 'a'.repeat(100_000) }]),
    await layer([{ name: 'b', content: 'b'.repeat(100_000) }]),
  ]);
  await registry.push('faults', 'v1', image);
});

afterAll(async () => {
  await plan.set([]);
  expect(await berthd.close()).toEqual([]);
  await registry.stop();
  await rm(dir, { recursive: true });
  console.log(`fault points and how they ended:\n${results.join('\n')}`);
});

/**
 * Makes a request until it succeeds, as the kubelet would, starting the daemon again when it has died.
 * A plan's fault happens once, so the next try must succeed.
 */
async function persist<T>(request: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await request();
    } catch (e: unknown) {
      if (attempt === MAX_TRIES) throw e;
      await revive();
    }
  }
}

/** Returns when the daemon answers, having started it again if it has died. */
async function revive(): Promise<void> {
  await until('the daemon answers', async () => {
    if (!berthd.isRunning) await berthd.start().catch(() => {});
    // Also an answer that waits for recovery, in which a fault may end the daemon once more.
    return berthd.client.runtime('ListContainers', {}).then(
      () => true,
      () => false,
    );
  });
}

/** Two callers at once, as after a caller's deadline has passed: both are answered alike. */
async function twice<T>(request: () => Promise<T>): Promise<T> {
  const [a, b] = await Promise.all([persist(request), persist(request)]);
  expect(b).toEqual(a);
  return a;
}

/** A pod's whole life, every request repeated until it succeeds. */
async function life(more: PodSandboxConfig = {}): Promise<void> {
  const config: PodSandboxConfig = pods.config(more);
  const { pod_sandbox_id } = await twice(() => berthd.client.runtime('RunPodSandbox', { config }));
  const { items } = await persist(() => berthd.client.runtime('ListPodSandbox', {}));
  expect(items.map(({ id, state }) => ({ id, state }))).toEqual([
    { id: pod_sandbox_id, state: 'SANDBOX_READY' },
  ]);
  const container: ContainerConfig = containerConfig({
    command: ['sleep', '1000'],
    mounts: [{ container_path: '/volume', readonly: true, image: { image: BUSYBOX } }],
  });
  const create = { pod_sandbox_id, config: container, sandbox_config: config };
  const { container_id } = await twice(() => berthd.client.runtime('CreateContainer', create));
  await persist(() => start(container_id));
  expect(await persist(() => pods.ask(container_id, 'echo alive'))).toBe('alive');
  await twice(() => berthd.client.runtime('StopContainer', { container_id, timeout: 0 }));
  const { state, exit_code } = await persist(() => pods.status(container_id));
  expect({ state, exit_code }).toEqual({ state: 'CONTAINER_EXITED', exit_code: 137 });
  await twice(() => berthd.client.runtime('RemoveContainer', { container_id }));
  await twice(() => berthd.client.runtime('StopPodSandbox', { pod_sandbox_id }));
  await twice(() => berthd.client.runtime('RemovePodSandbox', { pod_sandbox_id }));
}

/** A start whose answer was lost is found out by looking: a second one is refused. */
async function start(container_id: string): Promise<void> {
  const { state } = await pods.status(container_id);
  if (state !== 'CONTAINER_RUNNING') await berthd.client.runtime('StartContainer', { container_id });
}

async function pull(): Promise<void> {
  const spec = { image: `${registry.host}/faults:v1` };
  const { image_ref } = await twice(() => berthd.client.image('PullImage', { image: spec }));
  const found = await persist(() => berthd.client.image('ImageStatus', { image: spec }));
  expect(found.image?.id).toBe(image_ref);
  await persist(() => berthd.client.image('RemoveImage', { image: spec }));
}

/** A daemon that is killed while a container runs and another is half made, and started again. */
async function recovery(faults: readonly Fault[]): Promise<void> {
  const pod = await pods.run();
  const container_id = await pods.start(pod);
  const before = await pods.everything();
  await plan.set([...faults, { point: 'CreateContainer.monitor', action: 'crash' }]);
  await pods.create(pod).catch(() => {});
  expect(await persist(() => pods.everything())).toEqual(before);
  expect(await persist(() => pods.ask(container_id, 'echo alive'))).toBe('alive');
  await persist(() => pods.removePod(pod));
}

afterEach(async () => {
  await plan.set([]);
  await revive();
  // Nothing, unless the test failed: the next one is to begin on clean ground.
  await berthd.removeAllPods();
});

it('what the node does not have is refused before a root file system is mounted', async () => {
  const pod = await pods.run();
  await plan.set([{ point: 'CreateContainer.rootfs', action: 'error' }]);
  const profile = { profile_type: 'Localhost', localhost_ref: 'no-such-profile' } as const;
  const wanted: [ContainerConfig, string][] = [
    [{ CDI_devices: [{ name: 'berth.example/thing=none' }] }, 'config.CDI_devices[0].name: no CDI device'],
    [{ linux: { security_context: { apparmor: profile } } }, 'config.linux.security_context.apparmor'],
    [{ devices: [{ host_path: '/dev/no-such-device' }] }, 'config.devices[0].host_path'],
  ];
  for (const [asked, message] of wanted) {
    const refused = await refusal(pods.create(pod, asked));
    expect(refused).toMatchObject({ kind: 'invalid', message: expect.stringContaining(message) });
  }
  expect(await plan.done()).toEqual([]);
});

describe.each(ACTIONS)('%s', (action) => {
  it.each(FAULT_POINTS)('at %s is survived, and leaves nothing', async (point) => {
    const [verb] = point.split('.');
    if (verb === 'Recovery') {
      await recovery([{ point, action }]);
    } else {
      await plan.set([{ point, action }]);
      // Nothing is held by a process otherwise.
      const withPause = point.endsWith('.pause') ? { linux: { security_context: SHARED_PID } } : {};
      await (verb === 'PullImage' ? pull() : life(withPause));
    }
    await revive();
    // What could not be removed at once is on the to-do list, which is worked off behind the callers' backs.
    await until('all is removed', async () => (await berthd.client.info()).cleanup_tasks.length === 0);
    expect(await leftovers(berthd)).toEqual([]);
    expect(await plan.done()).toContain(`${point} ${action}`);
    results.push(`${point.padEnd(36)} ${action}`);
  });
});
