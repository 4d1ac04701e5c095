import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import {
  containerConfig,
  IDLE,
  importArchive,
  type Pod,
  Pods,
  refusal,
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
describe('the end of a container', () => {
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
});

describe('StopContainer', () => {
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
});

describe('RemoveContainer', () => {
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
