import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError } from './errors.ts';

/**
 * The places at which a test can make berthd fail: after each step that makes something, before each that
 * takes something away. The part before the dot is the verb, but that the end of a container and a start
 * of the daemon are nobody's call.
 */
export const FAULT_POINTS = [
  'RunPodSandbox.recorded',
  'RunPodSandbox.prepared',
  'RunPodSandbox.files',
  'RunPodSandbox.namespaces',
  'RunPodSandbox.network',
  'RunPodSandbox.pause',
  'RunPodSandbox.hosts',
  'RunPodSandbox.live',
  'CreateContainer.recorded',
  'CreateContainer.rootfs',
  'CreateContainer.imageVolumes',
  'CreateContainer.spec',
  'CreateContainer.log',
  'CreateContainer.monitor',
  'CreateContainer.live',
  'StartContainer.begun',
  'StartContainer.started',
  'StartContainer.recorded',
  'StopContainer.begun',
  'StopContainer.killed',
  'ContainerExit.seen',
  'ContainerExit.recorded',
  'ContainerExit.processes',
  'ContainerExit.runtime',
  'ContainerExit.cgroup',
  'ContainerExit.imageVolumes',
  'ContainerExit.rootfs',
  'ContainerExit.exitFile',
  'RemoveContainer.recorded',
  'RemoveContainer.parts',
  'RemoveContainer.monitor',
  'RemoveContainer.bundle',
  'RemoveContainer.writableLayer',
  'RemoveContainer.forget',
  'StopPodSandbox.containers',
  'StopPodSandbox.recorded',
  'StopPodSandbox.network',
  'StopPodSandbox.pause',
  'StopPodSandbox.namespaces',
  'StopPodSandbox.shm',
  'RemovePodSandbox.recorded',
  'RemovePodSandbox.containers',
  'RemovePodSandbox.cgroup',
  'RemovePodSandbox.parentCgroups',
  'RemovePodSandbox.files',
  'RemovePodSandbox.forget',
  'PullImage.manifest',
  'PullImage.blob',
  'PullImage.layer',
  'PullImage.record',
  'PullImage.recorded',
  'Recovery.begun',
  'Recovery.helpers',
  'Recovery.sandbox',
  'Recovery.container',
  'Recovery.repair',
  'Recovery.sweep',
] as const;

export type FaultPoint = (typeof FAULT_POINTS)[number];

/** Called at each point; does nothing outside of tests. */
export interface Faults {
  /** @throws BerthError `internal` when a test planned an error here */
  at(point: FaultPoint): Promise<void>;
}

export const noFaults: Faults = { at: async () => {} };

/**
 * The faults that a test planned, in a file of lines `<point> error`, `<point> crash` (SIGKILL to this
 * process) or `<point> delay <milliseconds>`. Each happens once, also over restarts: its line is taken out of the file
 * first, and goes to `<file>.done`.
 */
class PlannedFaults implements Faults {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  async at(point: FaultPoint): Promise<void> {
    // Synchronously, so that two calls at one point cannot take the same line.
    const lines = readFileSync(this.#file, 'utf8').split('\n');
    const index = lines.findIndex((line) => line.startsWith(`${point} `));
    const [planned] = index < 0 ? [] : lines.splice(index, 1);
    if (planned === undefined) return;
    writeFileSync(this.#file, lines.join('\n'));
    appendFileSync(`${this.#file}.done`, `${planned}\n`);
    const [, action, argument] = planned.split(' ');
    if (action === 'error') throw new BerthError('internal', `planned fault at ${point}`);
    if (action === 'crash') process.kill(process.pid, 'SIGKILL');
    await delay(Number(argument));
  }
}

/** The variable that names the plan. Nobody sets it by accident, and berthd warns when it is set. */
const SWITCH = 'BERTH_TEST_FAULTS';

/** The faults of this process. */
export function faultsOf(env: Readonly<Record<string, string | undefined>>): Faults {
  const plan = env[SWITCH];
  return plan === undefined ? noFaults : new PlannedFaults(plan);
}
