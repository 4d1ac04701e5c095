import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import { Berthd } from '../support/berthd.ts';
import { commandLines } from '../support/host.ts';
import { containerConfig, IDLE, Pods, refusal, SHARED_PID } from '../support/pods.ts';
import { type Misbehaviour, Wrapper } from '../support/wrappers.ts';

/** Milliseconds after which the impatient caller of a stuck request gives up. */
const PATIENCE_MS = 1_500;

let dir: string;
let berthd: Berthd;
let pods: Pods;
let wrappers: Record<'runc' | 'conmon' | 'bridge', Wrapper>;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-wrappers-'));
  wrappers = {
    runc: await Wrapper.make(path.join(dir, 'bin'), '/usr/sbin/runc', 'runtime'),
    conmon: await Wrapper.make(path.join(dir, 'bin'), '/usr/bin/conmon', 'conmon'),
    bridge: await Wrapper.make(path.join(dir, 'cni'), '/usr/lib/cni/bridge', 'cni'),
  };
  berthd = await Berthd.start({
    keys: `conmon = "${wrappers.conmon.program}"`,
    binDirs: [path.join(dir, 'cni'), '/usr/lib/cni'],
    tables: `[runtimes.runc]
type = "oci"
path = "/usr/sbin/runc"
[runtimes.wrapped]
type = "oci"
path = "${wrappers.runc.program}"`,
  });
  pods = new Pods(berthd);
  await berthd.importBusybox();
});

afterEach(async () => {
  for (const wrapper of Object.values(wrappers)) await wrapper.plan();
  expect(await berthd.removeAllPods()).toEqual([]);
  expect([...(await commandLines()).values()].filter((line) => line.includes(dir))).toEqual([]);
});

afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
  await rm(dir, { recursive: true });
});

/** The calls of a pod's life, in order; one pod and one container, always of the same configuration. */
class Life {
  readonly config: PodSandboxConfig = pods.config({
    metadata: { name: 'stuck', namespace: 'default', uid: 'u', attempt: 0 },
    linux: { security_context: SHARED_PID },
  });
  readonly container: ContainerConfig = containerConfig({
    ...IDLE,
    metadata: { name: 'stuck', attempt: 0 },
  });
  #pod = '';
  #container = '';

  readonly calls = {
    RunPodSandbox: async (timeoutMs: number) => {
      const request = { config: this.config, runtime_handler: 'wrapped' };
      this.#pod = (await berthd.client.runtime('RunPodSandbox', request, { timeoutMs })).pod_sandbox_id;
    },
    CreateContainer: async (timeoutMs: number) => {
      const request = { pod_sandbox_id: this.#pod, config: this.container, sandbox_config: this.config };
      this.#container = (await berthd.client.runtime('CreateContainer', request, { timeoutMs })).container_id;
    },
    StartContainer: (timeoutMs: number) =>
      berthd.client.runtime('StartContainer', { container_id: this.#container }, { timeoutMs }),
    StopContainer: (timeoutMs: number) =>
      berthd.client.runtime('StopContainer', { container_id: this.#container, timeout: 1 }, { timeoutMs }),
    StopPodSandbox: (timeoutMs: number) =>
      berthd.client.runtime('StopPodSandbox', { pod_sandbox_id: this.#pod }, { timeoutMs }),
  };

  status() {
    return pods.status(this.#container);
  }
}

type Call = keyof Life['calls'];

/** Another pod's life goes on, and lists answer, while something is stuck. */
async function othersGoOn(): Promise<void> {
  const pod = await pods.run();
  const id = await pods.start(pod);
  expect(await pods.ask(id, 'echo others')).toBe('others');
  await pods.stop(id);
  await pods.removePod(pod);
  await berthd.client.runtime('ListContainers', {}, { timeoutMs: 10_000 });
  await berthd.client.runtime('ListContainerStats', {}, { timeoutMs: 10_000 });
  await berthd.client.runtime('Status', {}, { timeoutMs: 10_000 });
}

interface Case {
  program: keyof typeof wrappers;
  verb: string;
  action: Misbehaviour;
  /** The call that is refused, and with what; undefined: berth gets by without. */
  refused?: { call: Call; message: RegExp };
}

const CASES: Case[] = [
  {
    program: 'runc',
    verb: 'run',
    action: 'fail',
    refused: {
      call: 'RunPodSandbox',
      message: /^pause container: .*planned failure of run|^pause container: run: exit code 1/,
    },
  },
  {
    program: 'runc',
    verb: 'run',
    action: 'nonsense',
    refused: { call: 'RunPodSandbox', message: /^pause container: / },
  },
  {
    program: 'runc',
    verb: 'create',
    action: 'fail',
    refused: { call: 'StartContainer', message: /planned failure of create/ },
  },
  {
    program: 'runc',
    verb: 'start',
    action: 'fail',
    refused: { call: 'StartContainer', message: /planned failure of start/ },
  },
  { program: 'runc', verb: 'kill', action: 'fail' },
  {
    program: 'conmon',
    verb: 'create',
    action: 'fail',
    refused: { call: 'CreateContainer', message: /^monitor: conmon: exit code 1: planned failure/ },
  },
  {
    program: 'conmon',
    verb: 'create',
    action: 'nonsense',
    refused: { call: 'CreateContainer', message: /^monitor: conmon: / },
  },
  {
    program: 'bridge',
    verb: 'ADD',
    action: 'fail',
    refused: {
      call: 'RunPodSandbox',
      message: /^network: .*CNI plugin "bridge" failed on ADD: .*planned failure/,
    },
  },
  {
    program: 'bridge',
    verb: 'ADD',
    action: 'nonsense',
    refused: { call: 'RunPodSandbox', message: /^network: .*CNI plugin "bridge"/ },
  },
  {
    program: 'bridge',
    verb: 'DEL',
    action: 'fail',
    refused: { call: 'StopPodSandbox', message: /CNI network: .*CNI plugin "bridge" failed on DEL/ },
  },
];

describe('what misbehaves', () => {
  it.each(CASES)('$program $verb: $action', async ({ program, verb, action, refused }) => {
    const life = new Life();
    await wrappers[program].plan(verb, action, program === 'runc' ? '' : 'stuck');
    for (const [name, call] of Object.entries(life.calls)) {
      if (name !== refused?.call) {
        await call(60_000);
        continue;
      }
      expect(await refusal(call(60_000))).toMatchObject({ message: expect.stringMatching(refused.message) });
      if (name === 'StartContainer') {
        expect(await life.status()).toMatchObject({ exit_code: 128, reason: 'StartError' });
      }
      break;
    }
    await wrappers[program].plan();
    if (refused === undefined || refused.call === 'StartContainer') return;
    await life.calls[refused.call](60_000);
  });
});

const HANGING: { program: keyof typeof wrappers; verb: string; call: Call }[] = [
  { program: 'runc', verb: 'run', call: 'RunPodSandbox' },
  { program: 'bridge', verb: 'ADD', call: 'RunPodSandbox' },
  { program: 'conmon', verb: 'create', call: 'CreateContainer' },
  { program: 'runc', verb: 'create', call: 'CreateContainer' },
  { program: 'runc', verb: 'start', call: 'StartContainer' },
  { program: 'bridge', verb: 'DEL', call: 'StopPodSandbox' },
];

describe('what hangs', () => {
  /** Goes up to the call that hangs, and gives up on it. */
  async function getStuck({ program, verb, call }: (typeof HANGING)[number]): Promise<Life> {
    const life = new Life();
    for (const [name, begin] of Object.entries(life.calls)) {
      if (name === call) break;
      await begin(60_000);
    }
    await wrappers[program].plan(verb, 'hang', program === 'runc' ? '' : 'stuck');
    expect(await refusal(life.calls[call](PATIENCE_MS))).toMatchObject({ kind: 'deadline' });
    return life;
  }

  it.each(HANGING)('$program $verb hurts only its own pod, and a retry joins it', async (hanging) => {
    const life = await getStuck(hanging);
    await othersGoOn();
    const retry = life.calls[hanging.call](60_000);
    await wrappers[hanging.program].plan();
    // The start that hung has succeeded in the end, so there is nothing left to start.
    if (hanging.call === 'StartContainer') await refusal(retry);
    else await retry;
  });

  it.each(HANGING)('$program $verb ends with the daemon’s next start', async (hanging) => {
    const life = await getStuck(hanging);
    await berthd.stop('SIGKILL');
    await berthd.start();
    await othersGoOn();
    // Still planned to hang: what goes on now was not begun by this daemon. The next attempt is another one.
    await wrappers[hanging.program].plan();
    if (hanging.call !== 'StartContainer') await life.calls[hanging.call](60_000);
  });

  it('runc kill does not lengthen the grace of a stop', async () => {
    const life = new Life();
    for (const name of ['RunPodSandbox', 'CreateContainer', 'StartContainer'] as const) {
      await life.calls[name](60_000);
    }
    await wrappers.runc.plan('kill', 'hang');
    await life.calls.StopContainer(20_000);
    expect(await life.status()).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 137 });
  });
});
