import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { isErrno } from '../../src/errors.ts';
import type { Berthd } from './berthd.ts';
import { containerConfig, IDLE, type Pod, Pods, sh, until } from './pods.ts';

/** Between the beginning of a request and the daemon's death in the midst of it, at most; milliseconds. */
const AIM_MS = 200;

/** Numbers that look random and are the same for the same seed (the generator is "mulberry32"). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to below 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number, 0 to below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  pick<T>(...all: [T, ...T[]]): T {
    return all[this.below(all.length)] ?? all[0];
  }
}

/**
 * A daemon that is killed now and then, and who asks it. A request may fail only when the daemon was killed
 * under it; then it is made again, as the kubelet does. Every other failure is the daemon's and is thrown.
 */
export class Mortal {
  readonly berthd: Berthd;
  readonly pods: Pods;
  #deaths = 0;
  #requests = 0;
  #up: Promise<void> = Promise.resolve();
  #aims: { request: number; afterMs: number }[] = [];
  readonly #aimed: Promise<void>[] = [];

  constructor(berthd: Berthd) {
    this.berthd = berthd;
    this.pods = new Pods(berthd);
  }

  get deaths(): number {
    return this.#deaths;
  }

  /** How many requests were begun, without repetitions. */
  get requests(): number {
    return this.#requests;
  }

  /** SIGKILL in the midst of as many of the next `requests` requests. */
  aim(random: Random, kills: number, requests: number): void {
    this.#aims = Array.from({ length: kills }, () => ({
      request: this.#requests + 1 + random.below(requests),
      afterMs: random.below(AIM_MS),
    }));
  }

  /** Ends the daemon without warning, lets `meanwhile` happen, and starts it again. One after another. */
  kill(meanwhile: () => unknown = () => {}): Promise<void> {
    const before = this.#up;
    this.#up = (async () => {
      await before;
      this.#deaths++;
      await this.berthd.stop('SIGKILL');
      try {
        await meanwhile();
      } finally {
        await this.berthd.start();
      }
    })();
    return this.#up;
  }

  async ask<T>(request: () => Promise<T>): Promise<T> {
    this.#requests++;
    const due = this.#aims.filter((aim) => aim.request <= this.#requests);
    this.#aims = this.#aims.filter((aim) => !due.includes(aim));
    for (const { afterMs } of due) this.#aimed.push(delay(afterMs).then(() => this.kill()));
    for (;;) {
      await this.#up;
      const deaths = this.#deaths;
      try {
        return await request();
      } catch (e: unknown) {
        if (deaths === this.#deaths) throw e;
      }
    }
  }

  /** Resolves when the daemon is up again after every kill that a request has caused. */
  async settled(): Promise<void> {
    await Promise.all(this.#aimed);
    await this.#up;
  }

  /** Starts a container that may have been started by a request whose answer was lost. */
  start(container_id: string): Promise<void> {
    return this.ask(async () => {
      const { state } = await this.pods.status(container_id);
      if (state === 'CONTAINER_CREATED') await this.berthd.client.runtime('StartContainer', { container_id });
    });
  }
}

/**
 * A pod's life as the kubelet drives it, of a shape that `random` makes: network of its own or the node's, up
 * to two containers that end by themselves, are killed, or are left to the end of the pod.
 *
 * @throws Error when the daemon tells something else than what must have happened
 */
export async function live(mortal: Mortal, random: Random): Promise<void> {
  const { pods } = mortal;
  const config = pods.config(random.below(2) === 0 ? {} : ON_NODE);
  const pod = await mortal.ask(() => pods.run(config));
  const expected = new Map<string, number>();
  for (let left = random.below(3); left > 0; left--) {
    const [id, code] = await container(mortal, random, pod);
    expected.set(id, code);
  }
  if (random.below(4) > 0) await mortal.ask(() => pods.stopPod(pod));
  const { state } = await mortal.ask(() => pods.podStatus(pod));
  if (state === 'SANDBOX_NOTREADY') {
    for (const [id, code] of expected) {
      const status = await mortal.ask(() => pods.status(id));
      check(status.state === 'CONTAINER_EXITED' && status.exit_code === code, `of ${code}`, status);
    }
  }
  await mortal.ask(() => pods.removePod(pod));
  const { items } = await mortal.ask(() =>
    mortal.berthd.client.runtime('ListPodSandbox', { filter: { id: pod.id } }),
  );
  check(items.length === 0, 'removed', items);
}

/** @returns the id of a container that still exists, and the code that it ends or has ended with */
async function container(mortal: Mortal, random: Random, pod: Pod): Promise<[string, number]> {
  const { pods } = mortal;
  const code = random.below(256);
  const end = random.pick('exit', 'kill', 'leave');
  const config = containerConfig(end === 'exit' ? sh(`exit ${code}`) : IDLE);
  const id = await mortal.ask(() => pods.create(pod, config));
  await mortal.start(id);
  if (end === 'kill') await mortal.ask(() => pods.stop(id));
  if (end === 'exit') {
    await until(`container ${id} has ended`, async () => {
      const { state } = await mortal.ask(() => pods.status(id));
      return state === 'CONTAINER_EXITED';
    });
  }
  const status = await mortal.ask(() => pods.status(id));
  const expected = end === 'exit' ? code : 137;
  if (end === 'leave') check(status.state === 'CONTAINER_RUNNING', 'running', status);
  else check(status.exit_code === expected, `of ${expected}`, status);
  if (end !== 'leave' && random.below(2) === 0) {
    await mortal.ask(() => pods.removeContainer(id));
    return container(mortal, random, pod);
  }
  return [id, expected];
}

function check(isRight: boolean, what: string, told: unknown): void {
  if (!isRight) throw new Error(`not ${what}: ${JSON.stringify(told)}`);
}

/** The part of a pod's configuration that gives it the node's network: it needs no CNI, and is made faster. */
export const ON_NODE = {
  hostname: '',
  linux: { security_context: { namespace_options: { network: 'NODE' as const } } },
};

/** Does `count` jobs, `workers` at a time. After the first failure no job is begun any more. */
export async function inParallel(
  count: number,
  workers: number,
  job: (index: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < count) {
      try {
        await job(next++);
      } catch (e: unknown) {
        next = count;
        throw e;
      }
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
}

/** Resident memory of a process in bytes, and how many descriptors it has open. */
export function footprint(pid: number): { rssBytes: number; descriptors: number } {
  const [, kb] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return { rssBytes: Number(kb) * 1024, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

/** Pids of ended processes that their parent, this one, has not reaped. */
export function zombiesOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8');
        return /^State:\s+Z/m.test(status) && new RegExp(`^PPid:\\s+${parent}$`, 'm').test(status);
      } catch (e: unknown) {
        if (isErrno(e, 'ENOENT', 'ESRCH')) return false;
        throw e;
      }
    });
}
