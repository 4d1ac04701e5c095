import { execFile } from 'node:child_process';
import { open, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Measure, median, PARALLEL, quantile, type Size, type Values } from './measure.ts';
import { atOnce, type CallTimes, endPod, startPod } from './pods.ts';
import type { Subject } from './subject.ts';

const exec = promisify(execFile);
const LIFE_CALLS = [
  'RunPodSandbox',
  'CreateContainer',
  'StartContainer',
  'StopContainer',
  'StopPodSandbox',
  'RemoveContainer',
  'RemovePodSandbox',
];

const boot: Measure = {
  name: 'boot',
  restarts: true,
  figures: () => [
    { key: 'boot', title: 'daemon start to first answer, no pods', unit: 's', bar: { atMost: 3 } },
  ],
  async run(subject) {
    await subject.stop('SIGTERM');
    return { boot: (await subject.start()) / 1000 };
  },
};

const starts: Measure = {
  name: 'start',
  figures: () => [
    { key: 'start', title: 'pod start to RUNNING, alone, p50', unit: 'ms', bar: { atMost: 0.6 } },
    { key: 'start95', title: 'pod start to RUNNING, alone, p95', unit: 'ms' },
    ...LIFE_CALLS.map((name) => ({ key: name, title: `  ${name}, alone, p50`, unit: 'ms' as const })),
  ],
  async run(subject, size) {
    const all: CallTimes[] = [];
    for (let i = 0; i < size.starts; i++) {
      const { pod, times } = await startPod(subject);
      all.push({ ...times, ...(await endPod(subject, pod)) });
    }
    const of = (name: string) => all.map((times) => times[name] ?? Number.NaN);
    const calls = Object.fromEntries(LIFE_CALLS.map((name) => [name, median(of(name))]));
    return { start: median(of('start')), start95: quantile(of('start'), 0.95), ...calls };
  },
};

const lives: Measure = {
  name: 'lives',
  figures: () => [
    { key: 'lives', title: `whole pod lives, ${PARALLEL} at a time`, unit: '/s', bar: { atLeast: 1.7 } },
    { key: 'livesStart', title: `pod start to RUNNING, ${PARALLEL} at a time, p50`, unit: 'ms' },
    { key: 'livesCpu', title: '  CPU per pod life, daemon and helpers', unit: 'ms' },
  ],
  async run(subject, size) {
    const started: number[] = [];
    const cpu = await subject.account.cpuNs();
    const began = performance.now();
    await atOnce(size.lives, PARALLEL, async () => {
      const { pod, times } = await startPod(subject);
      started.push(times.start ?? Number.NaN);
      await endPod(subject, pod);
    });
    const seconds = (performance.now() - began) / 1000;
    return {
      lives: size.lives / seconds,
      livesStart: median(started),
      livesCpu: Number((await subject.account.cpuNs()) - cpu) / 1e6 / size.lives,
    };
  },
};

const execs: Measure = {
  name: 'exec',
  figures: () => [
    { key: 'exec', title: 'ExecSync true, alone, p50', unit: 'ms', bar: { atMost: 0.8 } },
    { key: 'execRate', title: `ExecSync true, ${PARALLEL} at a time`, unit: '/s' },
  ],
  async run(subject, size) {
    const { pod } = await startPod(subject);
    const once = async () => {
      const began = performance.now();
      const request = { container_id: pod.container, cmd: ['true'], timeout: 60 };
      const { exit_code } = await subject.client.runtime('ExecSync', request);
      if (exit_code !== 0) throw new Error(`${subject.name}: ExecSync true ended with ${exit_code}`);
      return performance.now() - began;
    };
    try {
      await once();
      const took: number[] = [];
      for (let i = 0; i < size.execs; i++) took.push(await once());
      const began = performance.now();
      await atOnce(size.execs, PARALLEL, async () => void (await once()));
      return { exec: median(took), execRate: (size.execs * 1000) / (performance.now() - began) };
    } finally {
      await endPod(subject, pod);
    }
  },
};

const LINE = 100;
/** The container reads its file this often, so that the file is small and in the page cache. */
const REPEATS = 10;
const END = 'berth-bench-end';
const LOG_TIMEOUT_MS = 120_000;

const log: Measure = {
  name: 'log',
  figures: ({ logLines }) => {
    const what = `${(logLines * LINE) / 1e6} MB of log in lines of ${LINE} bytes`;
    return [
      { key: 'log', title: what, unit: 's', bar: { atMost: 0.15 } },
      { key: 'logCpu', title: `${what}: CPU`, unit: 's', bar: { atMost: 0.15 } },
    ];
  },
  run: writeLog,
};

/** The container waits at a FIFO and then copies a file to its stdout: next to no work of its own. */
async function writeLog(subject: Subject, { logLines }: Size): Promise<Values> {
  const [lines, go] = [path.join(subject.directory, 'lines'), path.join(subject.directory, 'go')];
  await writeFile(lines, `${'x'.repeat(LINE - 1)}\n`.repeat(Math.ceil(logLines / REPEATS)));
  await exec('mkfifo', ['-m', '0644', go]).catch(() => {});
  const script = `read x </bench/go; for i in $(seq ${REPEATS}); do cat /bench/lines; done; echo ${END}; exec sleep 2147483647`;
  const { pod } = await startPod(subject, {
    command: ['sh', '-c', script],
    mounts: [{ container_path: '/bench', host_path: subject.directory, readonly: true }],
  });
  // For writing too, or the open would wait for the other side.
  const fifo = await open(go, 'r+');
  try {
    const cpu = await subject.account.cpuNs();
    const began = performance.now();
    await fifo.write('go\n');
    await endOfLog(pod.log);
    const took = performance.now() - began;
    const used = (await subject.account.cpuNs()) - cpu;
    const { size } = await stat(pod.log);
    if (size < logLines * LINE) throw new Error(`${subject.name}: the log has but ${size} bytes`);
    return { log: took / 1000, logCpu: Number(used) / 1e9 };
  } finally {
    await fifo.close();
    await endPod(subject, pod);
  }
}

async function endOfLog(file: string): Promise<void> {
  const handle = await open(file);
  try {
    const tail = Buffer.alloc(256);
    for (const since = performance.now(); performance.now() - since < LOG_TIMEOUT_MS; await delay(5)) {
      const { size } = await handle.stat();
      const { bytesRead } = await handle.read(tail, 0, tail.length, Math.max(0, size - tail.length));
      if (tail.subarray(0, bytesRead).includes(`${END}\n`)) return;
    }
    throw new Error(`${file}: the log does not end`);
  } finally {
    await handle.close();
  }
}

/** What is measured on a node without other pods. */
export const LONE: readonly Measure[] = [boot, starts, lives, execs, log];
