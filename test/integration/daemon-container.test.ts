import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import {
  containerConfig,
  IDLE,
  importArchive,
  type Pod,
  Pods,
  refusal,
  runs,
  SHARED_PID,
  sh,
  until,
} from '../support/pods.ts';

const USR1_IMAGE = 'localhost/berth-test/usr1:1';
const inPodPid = { linux: { security_context: SHARED_PID } };

let berthd: Berthd;
let pods: Pods;
/** A fresh one for every test. */
let pod: Pod;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  await importArchive(berthd, await busyboxArchive(USR1_IMAGE, ['sh'], { StopSignal: 'SIGUSR1' }));
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const newPod = async () => (pod = await pods.run());
/** Runs until told to end, and then tells how it was told. */
const trapping = (signals: string, code: number, more: ContainerConfig = {}) =>
  sh(`trap 'echo caught; exit ${code}' ${signals}; echo ready; while :; do sleep 0.05; done`, more);
const ready = (id: string) =>
  until('the container is ready', async () => {
    const lines = await pods.log((await pods.status(id)).log_path);
    return lines.some(({ text }) => text === 'ready');
  });
const seconds = async (work: () => Promise<unknown>) => {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
};

describe('the end of a container', () => {
  it('is its code: 0 Completed, any other Error, times in order', async () => {
    await newPod();
    for (const [code, reason] of [
      [0, 'Completed'],
      [3, 'Error'],
      [255, 'Error'],
    ] as const) {
      const before = BigInt(Date.now()) * 1_000_000n;
      const said = await pods.runToEnd(pod, sh(`echo out; sleep 0.1; exit ${code}`));
      expect(said).toMatchObject({ exit_code: code, reason, message: '', log: 'out\n' });
      const [created, started, finished] = [said.created_at, said.started_at, said.finished_at].map(BigInt);
      expect(created).toBeGreaterThanOrEqual(before);
      expect(started).toBeGreaterThan(created ?? 0n);
      expect((finished ?? 0n) - (started ?? 0n)).toBeGreaterThan(100_000_000n);
      expect(finished).toBeLessThanOrEqual(BigInt(Date.now() + 1) * 1_000_000n);
    }
  });

  it('by a signal is 128 and its number', async () => {
    pod = await pods.run(inPodPid);
    const id = await pods.start(pod);
    process.kill(await pods.pid('container', id), 'SIGKILL');
    expect(await pods.ended(id)).toMatchObject({ exit_code: 137, reason: 'Error' });
    for (const [signal, code] of [
      ['TERM', 143],
      ['SEGV', 139],
    ] as const) {
      const said = await pods.runToEnd(pod, sh(`kill -${signal} $$`, inPodPid));
      expect(said).toMatchObject({ exit_code: code, reason: 'Error' });
    }
  });

  it('in a shared PID namespace takes along what it left running', async () => {
    pod = await pods.run(inPodPid);
    const other = await pods.start(pod, { ...IDLE, ...inPodPid });
    const script = 'sleep 4321 >/dev/null 2>&1 & echo $!; sleep 0.2';
    const said = await pods.runToEnd(pod, sh(script, inPodPid));
    expect(said.exit_code).toBe(0);
    await until('the child is gone', async () => {
      const { code } = await pods.exec(other, ['test', '-e', `/proc/${said.log.trim()}`]);
      return code === 1;
    });
  });

  it('for want of memory is OOMKilled with 137', async () => {
    await newPod();
    const linux = { resources: { memory_limit_in_bytes: 24 << 20, memory_swap_limit_in_bytes: 24 << 20 } };
    const hungry = { command: ['dd', 'if=/dev/zero', 'of=/dev/null', 'bs=200M', 'count=1'], linux };
    expect(await pods.runToEnd(pod, hungry)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
    // One that survives its child's end has completed.
    const patient = sh('dd if=/dev/zero of=/dev/null bs=200M count=1; echo "code $?"; exit 0', { linux });
    expect(await pods.runToEnd(pod, patient)).toMatchObject({
      exit_code: 0,
      reason: 'Completed',
      log: expect.stringContaining('code 137\n'),
    });
  });

  it('before it began is StartError with 128 and a message that names the command', async () => {
    await newPod();
    const cases: [ContainerConfig, RegExp][] = [
      [{ command: ['no-such-command', 'x'] }, /no-such-command/],
      [{ command: ['/bin/no-such-file'] }, /\/bin\/no-such-file/],
      [{ command: ['/etc/passwd'] }, /\/etc\/passwd.*permission denied/],
      [{ command: ['sh'], working_dir: '/etc/passwd' }, /\/etc\/passwd/],
    ];
    for (const [config, message] of cases) {
      const container_id = await pods.create(pod, config);
      expect((await pods.status(container_id)).state).toBe('CONTAINER_CREATED');
      const said = await refusal(berthd.client.runtime('StartContainer', { container_id }));
      expect(said.message).toMatch(message);
      const status = await pods.status(container_id);
      expect(status).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 128, reason: 'StartError' });
      expect(status.message).toMatch(message);
      expect(BigInt(status.finished_at)).toBeGreaterThanOrEqual(BigInt(status.started_at));
      expect(BigInt(status.started_at)).toBeGreaterThanOrEqual(BigInt(status.created_at));
      expect((await refusal(berthd.client.runtime('StartContainer', { container_id }))).kind).toBe(
        'precondition',
      );
      await pods.stop(container_id, 10);
      await pods.removeContainer(container_id);
    }
  });
});

describe('StopContainer', () => {
  it('lets a container that listens to SIGTERM end by itself', async () => {
    await newPod();
    const id = await pods.start(pod, trapping('TERM', 7));
    await ready(id);
    expect(await seconds(() => pods.stop(id, 50))).toBeLessThan(40);
    const status = await pods.status(id);
    expect(status).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 7, reason: 'Error' });
    expect((await pods.log(status.log_path)).map(({ text }) => text)).toEqual(['ready', 'caught']);
    await pods.stop(id, 30);
  });

  it('kills at the end of grace one that does not', async () => {
    await newPod();
    const id = await pods.start(pod);
    const took = await seconds(() => pods.stop(id, 1));
    expect(took).toBeGreaterThan(0.95);
    expect(await pods.status(id)).toMatchObject({
      state: 'CONTAINER_EXITED',
      exit_code: 137,
      reason: 'Error',
    });
  });

  it('with timeout 0 kills at once, with all its children', async () => {
    await newPod();
    const id = await pods.start(pod, trapping('TERM', 7));
    await ready(id);
    await pods.exec(id, ['sh', '-c', 'sleep 100000 >/dev/null 2>&1 &']);
    const info = await pods.info('container', id);
    await pods.stop(id, 0);
    const status = await pods.status(id);
    expect(status.exit_code).toBe(137);
    expect((await pods.log(status.log_path)).map(({ text }) => text)).toEqual(['ready']);
    expect(existsSync(`/sys/fs/cgroup/pids${info.cgroup}`)).toBe(false);
  });

  it('sends the signal that image or configuration name', async () => {
    await newPod();
    const image = { image: { image: USR1_IMAGE } };
    const cases: [ContainerConfig, number, string][] = [
      [trapping('USR1', 11, image), 11, 'SIGUSR1'],
      [trapping('INT', 12, { ...image, stop_signal: 'SIGINT' }), 12, 'SIGINT'],
      [trapping('37', 13, { stop_signal: 'SIGRTMINPLUS3' }), 13, 'SIGRTMINPLUS3'],
    ];
    for (const [config, code, signal] of cases) {
      const id = await pods.start(pod, config);
      await ready(id);
      expect((await pods.status(id)).stop_signal).toBe(signal);
      await pods.stop(id, 20);
      expect((await pods.status(id)).exit_code).toBe(code);
    }
  });

  it('an urgent one does not wait for the grace of an earlier one', async () => {
    await newPod();
    const id = await pods.start(pod);
    const patient = pods.stop(id, 600);
    const took = await seconds(() => Promise.all([patient, pods.stop(id, 1), pods.stop(id, 300)]));
    expect(took).toBeLessThan(40);
    expect((await pods.status(id)).exit_code).toBe(137);
  });

  it('answers and lists are not held up by a container that is being stopped', async () => {
    await newPod();
    const id = await pods.start(pod);
    const stopping = pods.stop(id, 600);
    expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
    await pods.exec(id, ['true']);
    await berthd.client.runtime('ReopenContainerLog', { container_id: id });
    await pods.removePod(pod);
    await stopping;
    expect((await refusal(pods.status(id))).kind).toBe('notFound');
  });

  it('of one that was never started ends it, of an absent one is done', async () => {
    await newPod();
    const id = await pods.create(pod);
    await pods.stop(id, 30);
    const status = await pods.status(id);
    expect(status.state).toBe('CONTAINER_EXITED');
    expect(BigInt(status.finished_at)).toBeGreaterThanOrEqual(BigInt(status.created_at));
    await pods.stop('f'.repeat(64), 0);
  });
});

describe('RemoveContainer', () => {
  it('ends a running container and frees its name, and again says nothing', async () => {
    await newPod();
    const config = { ...IDLE, metadata: { name: 'same', attempt: 0 } };
    const id = await pods.start(pod, config);
    const pid = await pods.pid('container', id);
    await pods.removeContainer(id);
    expect(runs(pid)).toBe(false);
    await pods.removeContainer(id);
    expect((await refusal(pods.status(id))).kind).toBe('notFound');
    expect(await pods.start(pod, config)).not.toBe(id);
  });

  it('of one that is being created, started and stopped leaves nothing', async () => {
    await newPod();
    const id = await pods.create(pod);
    const start = berthd.client.runtime('StartContainer', { container_id: id }).catch(() => {});
    await Promise.all([start, pods.stop(id, 0), pods.removeContainer(id), pods.removeContainer(id)]);
    expect((await berthd.client.runtime('ListContainers', {})).containers).toEqual([]);
  });
});

describe('CreateContainer and lists', () => {
  it('eight calls with one name and attempt make one container', async () => {
    await newPod();
    const config = containerConfig({ ...IDLE, metadata: { name: 'one', attempt: 2 } });
    const call = () =>
      berthd.client.runtime('CreateContainer', {
        pod_sandbox_id: pod.id,
        config,
        sandbox_config: pod.config,
      });
    const ids = (await Promise.all(Array.from({ length: 8 }, call))).map((answer) => answer.container_id);
    expect(new Set([...ids, (await call()).container_id]).size).toBe(1);
    expect((await berthd.client.runtime('ListContainers', {})).containers.length).toBe(1);
  });

  it('a sandbox that is stopped meanwhile gets no container', async () => {
    await newPod();
    const create = pods.create(pod).then(
      (id) => id,
      () => undefined,
    );
    await pods.stopPod(pod);
    const id = await create;
    if (id !== undefined) expect((await pods.status(id)).state).toBe('CONTAINER_EXITED');
  });

  it('ListContainers shows what was asked for, and filters', async () => {
    await newPod();
    const other = await pods.run();
    const labels = { app: 'a', x: '1' };
    const a = await pods.start(pod, { ...IDLE, labels, annotations: { 'a/b': 'ü\n"' } });
    const b = await pods.create(pod, { ...IDLE, labels: { app: 'a' } });
    const c = (await pods.runToEnd(other, sh('exit 0', { labels }))).id;
    const list = async (filter: object) =>
      (await berthd.client.runtime('ListContainers', { filter })).containers.map(({ id }) => id).sort();
    const state = (s: string) => ({ state: { state: `CONTAINER_${s}` } });
    const expected: [object, string[]][] = [
      [{}, [a, b, c]],
      [{ id: a }, [a]],
      [{ pod_sandbox_id: pod.id }, [a, b]],
      [{ pod_sandbox_id: other.id, ...state('RUNNING') }, []],
      [state('CREATED'), [b]],
      [state('RUNNING'), [a]],
      [state('EXITED'), [c]],
      [state('UNKNOWN'), []],
      [{ label_selector: { app: 'a' } }, [a, b, c].filter((id) => id !== '')],
      [{ label_selector: labels }, [a, c]],
      [{ label_selector: labels, pod_sandbox_id: pod.id, ...state('RUNNING') }, [a]],
      [{ label_selector: { x: '' } }, []],
    ];
    for (const [filter, ids] of expected)
      expect(await list(filter), JSON.stringify(filter)).toEqual(ids.sort());
    const { containers } = await berthd.client.runtime('ListContainers', { filter: { id: a } });
    const status = await pods.status(a);
    expect(containers).toEqual([
      {
        id: a,
        pod_sandbox_id: pod.id,
        metadata: status.metadata,
        image: status.image,
        image_ref: status.image_ref,
        image_id: status.image_id,
        state: 'CONTAINER_RUNNING',
        created_at: status.created_at,
        labels,
        annotations: { 'a/b': 'ü\n"' },
      },
    ]);
    expect(status.image_ref).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect([status.started_at !== '0', status.finished_at]).toEqual([true, '0']);
    expect((await pods.status(b)).started_at).toBe('0');
  });
});

describe('ExecSync', () => {
  it('keeps stdout and stderr apart, and a code is no error', async () => {
    await newPod();
    const id = await pods.start(pod, {
      ...IDLE,
      envs: [{ key: 'FROM', value: Buffer.from('container') }],
      working_dir: '/tmp',
      linux: { security_context: { run_as_user: { value: 1000 }, namespace_options: { pid: 'CONTAINER' } } },
    });
    const said = await pods.exec(id, ['sh', '-c', 'echo $FROM; pwd; id -u; id -g; echo err >&2; exit 42']);
    expect(said).toEqual({ code: 42, stdout: 'container\n/tmp\n1000\n1001\n', stderr: 'err\n' });
    expect(await pods.exec(id, ['sh', '-c', 'kill -9 $$'])).toMatchObject({ code: 137 });
    expect(await pods.exec(id, ['sh', '-c', 'cat; exit 255'])).toEqual({ code: 255, stdout: '', stderr: '' });
    const many = Array.from({ length: 8 }, (_, i) => pods.exec(id, ['sh', '-c', `echo ${i}; exit ${i}`]));
    expect(await Promise.all(many)).toEqual(many.map((_, i) => ({ code: i, stdout: `${i}\n`, stderr: '' })));
  });

  it('kills the command with its children at the timeout, and says DEADLINE_EXCEEDED', async () => {
    await newPod();
    const id = await pods.start(pod);
    const script = 'echo $$ > /tmp/pid; sleep 5555 & sleep 6666';
    const said = await refusal(pods.exec(id, ['sh', '-c', script], 1));
    expect(said.kind).toBe('deadline');
    await gone(id, '[56]{4}');
    // Reaped too; what it had begun is PID 1's to reap.
    expect((await pods.exec(id, ['sh', '-c', 'test -e /proc/$(cat /tmp/pid)'])).code).toBe(1);
  });

  it('kills the command of a caller that has gone', async () => {
    await newPod();
    const id = await pods.start(pod);
    const caller = new AbortController();
    const request = { container_id: id, cmd: ['sleep', '5656'], timeout: 0 };
    const call = berthd.client.runtime('ExecSync', request, { signal: caller.signal });
    call.catch(() => {});
    await until('the command runs', () => matches(id, '5656'));
    caller.abort();
    expect((await refusal(call)).kind).toBe('cancelled');
    await gone(id, '5656');
  });

  it('returns when the command ends, though a child in the background holds its output', async () => {
    await newPod();
    const id = await pods.start(pod);
    const took = await seconds(async () => {
      expect(await pods.exec(id, ['sh', '-c', 'echo said; sleep 3000 & exit 5'], 50)).toMatchObject({
        code: 5,
        stdout: 'said\n',
      });
    });
    expect(took).toBeLessThan(40);
  });

  it('gives the first 15 MiB of more output than a message holds, and reads the rest', async () => {
    await newPod();
    const id = await pods.start(pod);
    const { exit_code, stdout, stderr } = await berthd.client.runtime('ExecSync', {
      container_id: id,
      cmd: ['sh', '-c', 'yes 0123456789abcde | head -c 20000000; exit 9'],
      timeout: 30,
    });
    expect([exit_code, stdout.length, stderr.length]).toEqual([9, 15 << 20, 0]);
    expect(stdout.equals(Buffer.from('0123456789abcde\n'.repeat((15 << 20) / 16)))).toBe(true);
    // Bytes of no encoding come through as they are.
    const bytes = await berthd.client.runtime('ExecSync', {
      container_id: id,
      cmd: ['printf', '\\000\\377\\n\\200'],
      timeout: 5,
    });
    expect([...bytes.stdout]).toEqual([0, 255, 10, 128]);
  });

  it('of a missing command, in a container that does not run, or of nothing, says so', async () => {
    await newPod();
    const id = await pods.start(pod);
    const missing = await refusal(pods.exec(id, ['no-such-command']));
    expect(missing.message).toContain('no-such-command');
    expect(await refusal(pods.exec(id, []))).toEqual({
      kind: 'invalid',
      message: expect.stringMatching(/^cmd: /),
    });
    expect((await refusal(pods.exec(id, ['true'], -1))).message).toMatch(/^timeout: /);
    await pods.stop(id);
    expect((await refusal(pods.exec(id, ['true']))).kind).toBe('precondition');
    expect((await refusal(pods.exec(await pods.create(pod), ['true']))).kind).toBe('precondition');
    expect((await refusal(pods.exec('f'.repeat(64), ['true']))).kind).toBe('notFound');
  });
});

/** Waits until no process of the container has such an argument. */
function gone(id: string, pattern: string): Promise<unknown> {
  return until(`no process matches ${pattern}`, async () => !(await matches(id, pattern)));
}

async function matches(id: string, pattern: string): Promise<boolean> {
  const { stdout } = await pods.exec(id, ['sh', '-c', 'cat /proc/[0-9]*/cmdline | tr "\\0" "\\n"']);
  return new RegExp(`^${pattern}$`, 'm').test(stdout);
}
