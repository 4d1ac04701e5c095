import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { listenTo, words } from '../support/events.ts';
import { IDLE, OWN_PID, Pods, SHARED_PID, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const listen = () => listenTo(berthd);

describe('GetContainerEvents', () => {
  it('tells every listener of a pod’s life, in order, with the statuses of each moment', async () => {
    const [one, two] = [await listen(), await listen()];
    for (const { read } of [one, two]) read();
    const pod = await pods.run();
    const id = await pods.start(pod, IDLE);
    const { id: short } = await pods.runToEnd(pod, sh('exit 3'));
    await pods.stop(id);
    await berthd.client.runtime('RemoveContainer', { container_id: short });
    await berthd.client.runtime('StopPodSandbox', { pod_sandbox_id: pod.id });
    await berthd.client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id });
    const expected = [
      ...[`${pod.id} created`, `${pod.id} started`, `${id} created`, `${id} started`],
      ...[`${short} created`, `${short} started`, `${short} stopped`, `${id} stopped`],
      ...[`${short} deleted`, `${pod.id} stopped`, `${id} deleted`, `${pod.id} deleted`],
    ];
    for (const { heard } of [one, two]) {
      await until('all is told', () => heard.length >= expected.length);
      expect(words(heard)).toEqual(expected);
      const times = heard.map(({ created_at }) => BigInt(created_at));
      expect(times).toEqual([...new Set(times)].sort((a, b) => (a < b ? -1 : 1)));
      // The kubelet ignores events without it.
      for (const event of heard) expect(event.pod_sandbox_status?.id).toBe(pod.id);
    }
    const { heard } = one;
    expect(heard[3]?.containers_statuses).toMatchObject([{ id, state: 'CONTAINER_RUNNING' }]);
    expect(heard[3]?.pod_sandbox_status?.network?.ip).toMatch(/^10\./);
    expect(heard[6]?.containers_statuses).toMatchObject([
      { id, state: 'CONTAINER_RUNNING' },
      { id: short, state: 'CONTAINER_EXITED', exit_code: 3, reason: 'Error' },
    ]);
    expect(heard[9]?.pod_sandbox_status?.state).toBe('SANDBOX_NOTREADY');
    for (const { leave } of [one, two]) leave();
  });

  it('tells of a container that the kernel killed for want of memory, and of no other', async () => {
    const listener = await listen();
    listener.read();
    const pod = await pods.run();
    const limited = { linux: { resources: { memory_limit_in_bytes: 32 << 20 }, security_context: OWN_PID } };
    const calm = await pods.start(pod, { ...IDLE, ...limited });
    // A shell's variable is memory that cannot be dropped.
    const greedy = await pods.start(pod, sh('a=x; while :; do a=$a$a; done', limited));
    const stopped = await until('the end is told', () =>
      listener.heard.find((e) => e.container_event_type === 'CONTAINER_STOPPED_EVENT'),
    );
    expect(stopped.container_id).toBe(greedy);
    expect(stopped.containers_statuses.find(({ id }) => id === greedy)).toMatchObject({
      state: 'CONTAINER_EXITED',
      exit_code: 137,
      reason: 'OOMKilled',
    });
    expect(stopped.containers_statuses.find(({ id }) => id === calm)?.state).toBe('CONTAINER_RUNNING');
    listener.leave();
  });

  it('tells of a pause process that dies', async () => {
    const pod = await pods.run({ linux: { security_context: SHARED_PID } });
    const listener = await listen();
    listener.read();
    process.kill(await pods.pid('pod', pod.id), 'SIGKILL');
    const event = await until('it is told', () => listener.heard[0]);
    expect(words([event])).toEqual([`${pod.id} stopped`]);
    expect(event.pod_sandbox_status?.state).toBe('SANDBOX_NOTREADY');
    listener.leave();
  });

  it('ends when the daemon stops, which does not wait for listeners', async () => {
    const listener = await listen();
    listener.read();
    const since = Date.now();
    await berthd.stop();
    expect(Date.now() - since).toBeLessThan(9_000);
    expect([undefined, status.UNAVAILABLE]).toContain((await listener.ended)?.code);
    listener.leave();
    await berthd.start();
  });
});
