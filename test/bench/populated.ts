import { setTimeout as delay } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { pssBytes } from './account.ts';
import { type Figure, type Measure, median, PARALLEL, type Values } from './measure.ts';
import { atOnce, endPod, startPod } from './pods.ts';
import { RawClient } from './raw-client.ts';
import type { Subject } from './subject.ts';

const MIB = 1 << 20;
/** Calls before the first that counts: both daemons do better when warm. */
const WARM_UP = 10;
const LISTED_TIMEOUT_MS = 120_000;

/** Fills a node. */
export async function populate(subject: Subject, count: number): Promise<void> {
  await atOnce(count, PARALLEL, async () => {
    subject.pods.push((await startPod(subject)).pod);
  });
}

/** Removes the pods of {@link populate}, also after half of it. */
export async function depopulate(subject: Subject): Promise<void> {
  const pods = subject.pods.splice(0);
  await atOnce(pods.length, PARALLEL, async () => {
    const pod = pods.pop();
    if (pod !== undefined) await endPod(subject, pod);
  });
}

const memory: Measure = {
  name: 'memory',
  populated: true,
  figures: ({ pods }) => [pssFigure('pss', `${pods} pods`)],
  run: async (subject) => ({ pss: await pss(subject) }),
};

/** Taken after all others that leave the daemon alive. */
const memoryAfter: Measure = {
  name: 'memory',
  populated: true,
  figures: ({ pods }) => [pssFigure('pssAfter', `${pods} pods, after lists and stats`)],
  run: async (subject) => ({ pssAfter: await pss(subject) }),
};

function pssFigure(key: string, when: string): Figure {
  return { key, title: `PSS of daemon and helpers, ${when}`, unit: 'MiB', bar: { atMost: 0.25 } };
}

async function pss(subject: Subject): Promise<number> {
  return (await pssBytes(await subject.account.pids())) / MIB;
}

const lists: Measure = {
  name: 'lists',
  populated: true,
  figures: ({ pods }) =>
    ['ListContainers', 'ListPodSandbox', 'ContainerStatus'].map((name) => ({
      key: name,
      title: `${name}, ${pods} pods, p50`,
      unit: 'ms',
      bar: { atMost: 1 },
    })),
  async run(subject, size) {
    const ids = subject.pods.map(({ container }) => container);
    const raw = new RawClient(subject.endpoint);
    try {
      return {
        ListContainers: await p50(size.calls, () => raw.time('ListContainers', {})),
        ListPodSandbox: await p50(size.calls, () => raw.time('ListPodSandbox', {})),
        ContainerStatus: await p50(size.calls, (i) =>
          raw.time('ContainerStatus', { container_id: ids[i % ids.length] }),
        ),
      };
    } finally {
      raw.close();
    }
  },
};

const stats: Measure = {
  name: 'stats',
  populated: true,
  figures: ({ pods }) =>
    ['ListContainerStats', 'ListPodSandboxStats'].flatMap((name) => [
      { key: name, title: `${name}, ${pods} pods, p50`, unit: 'ms' as const, bar: { atMost: 0.1 } },
      { key: `${name}Cpu`, title: '  CPU per call, daemon and helpers', unit: 'ms' as const },
    ]),
  run: async (subject, { calls }) => ({
    ...(await timeAndCpu(subject, 'ListContainerStats', Math.ceil(calls / 3))),
    ...(await timeAndCpu(subject, 'ListPodSandboxStats', Math.ceil(calls / 3))),
  }),
};

/** What the kubelet's and Prometheus' scrapes cost. containerd has it since 2.2. */
const metrics: Measure = {
  name: 'metrics',
  populated: true,
  figures: ({ pods }) => [
    {
      key: 'ListPodSandboxMetrics',
      title: `ListPodSandboxMetrics, ${pods} pods, p50`,
      unit: 'ms',
      own: { atMost: 100 },
    },
    {
      key: 'ListPodSandboxMetricsCpu',
      title: '  CPU per call, daemon and helpers',
      unit: 'ms',
      own: { atMost: 100 },
    },
  ],
  async run(subject, { calls }) {
    try {
      return await timeAndCpu(subject, 'ListPodSandboxMetrics', Math.ceil(calls / 3));
    } catch (e: unknown) {
      if (e instanceof Error && 'code' in e && e.code === status.UNIMPLEMENTED) return {};
      throw e;
    }
  },
};

/** The median time of a call under its name, and the CPU time of one under its name with `Cpu`. */
async function timeAndCpu(subject: Subject, name: string, calls: number): Promise<Values> {
  const raw = new RawClient(subject.endpoint);
  try {
    const cpu = await subject.account.cpuNs();
    const took = await p50(calls, () => raw.time(name, {}));
    const used = Number((await subject.account.cpuNs()) - cpu) / 1e6;
    return { [name]: took, [`${name}Cpu`]: used / (calls + WARM_UP) };
  } finally {
    raw.close();
  }
}

async function p50(calls: number, call: (i: number) => Promise<number>): Promise<number> {
  for (let i = 0; i < WARM_UP; i++) await call(i);
  const took: number[] = [];
  for (let i = 0; i < calls; i++) took.push(await call(i));
  return median(took);
}

const idle: Measure = {
  name: 'idle',
  populated: true,
  together: true,
  figures: ({ pods }) => [
    {
      key: 'idle',
      title: `idle with ${pods} pods, sampling them, CPU`,
      unit: 'ms/s',
      bar: { atMost: 0.5 },
      own: { atMost: 10 },
    },
  ],
  async run(subject, size) {
    const [cpu, began] = [await subject.account.cpuNs(), performance.now()];
    await delay(size.idleMs);
    const used = Number((await subject.account.cpuNs()) - cpu) / 1e6;
    return { idle: used / ((performance.now() - began) / 1000) };
  },
};

const kill: Measure = {
  name: 'kill',
  populated: true,
  restarts: true,
  figures: ({ pods }) => [
    { key: 'killFirst', title: `kill -9 with ${pods} pods: start to first answer`, unit: 's' },
    { key: 'kill', title: `kill -9 with ${pods} pods: start to all listed`, unit: 's', bar: { atMost: 0.3 } },
  ],
  async run(subject) {
    await subject.stop('SIGKILL');
    const began = performance.now();
    const first = await subject.start();
    for (let refusal: unknown; ; await delay(5)) {
      // A daemon that recovers may refuse, with any code.
      const all = await allListed(subject).catch((e: unknown) => {
        refusal = e;
      });
      if (all === true) break;
      if (performance.now() - began > LISTED_TIMEOUT_MS) {
        throw new Error(`${subject.name}: not all pods are back after a kill`, { cause: refusal });
      }
    }
    return { killFirst: first / 1000, kill: (performance.now() - began) / 1000 };
  },
};

/** Every pod is READY and every container RUNNING, as before. */
async function allListed({ client, pods }: Subject): Promise<boolean> {
  const running = { filter: { state: { state: 'CONTAINER_RUNNING' } } } as const;
  const ready = { filter: { state: { state: 'SANDBOX_READY' } } } as const;
  const { containers } = await client.runtime('ListContainers', running);
  const { items } = await client.runtime('ListPodSandbox', ready);
  const listed = new Set([...containers, ...items].map(({ id }) => id));
  return pods.every(({ sandbox, container }) => listed.has(sandbox) && listed.has(container));
}

/** What is measured with the pods of a populated node, in this order. */
export const POPULATED: readonly Measure[] = [memory, lists, stats, metrics, idle, memoryAfter, kill];
