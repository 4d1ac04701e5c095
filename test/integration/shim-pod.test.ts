import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { type Pod, Pods, runs, sh, until } from '../support/pods.ts';
import { SHIM_HANDLER, SHIM_TABLES, shimSockets, shims } from '../support/shim.ts';

let berthd: Berthd;
let pods: Pods;
let socketsBefore: string[];
beforeAll(async () => {
  socketsBefore = await shimSockets();
  berthd = await Berthd.start({ tables: SHIM_TABLES });
  pods = new Pods(berthd);
  await berthd.importBusybox();
});
afterEach(async () => {
  expect(await berthd.removeAllPods()).toEqual([]);
  expect([...(await shims(berthd)).keys()]).toEqual([]);
});
afterAll(async () => {
  expect(await berthd?.close()).toEqual([]);
});

const newPod = () => pods.run({}, SHIM_HANDLER);

/** The one shim of a pod. */
async function shimOf({ id }: Pod): Promise<number> {
  const pid = (await shims(berthd)).get(id);
  if (pid === undefined) throw new Error('the pod has no shim');
  return pid;
}

describe('a pod by containerd-shim-runc-v2', () => {
  it('lives its whole life in one shim, beside pods by runc', async () => {
    const pod = await newPod();
    const other = await pods.run({}, 'runc');
    const first = await pods.start(pod, sh('echo one; echo two >&2; sleep 100000'));
    const second = await pods.start(pod);
    const third = await pods.start(other);
    expect([...(await shims(berthd)).keys()]).toEqual([pod.id]);
    expect((await pods.podStatus(pod)).network?.ip).toMatch(/^10\./);
    expect((await pods.podStatus(pod)).runtime_handler).toBe(SHIM_HANDLER);
    const { log_path } = await pods.status(first);
    const lines = await until('both lines are logged', async () => {
      const all = await pods.log(log_path);
      return all.length === 2 ? all : undefined;
    });
    expect(lines.map(({ stream, tag, text }) => `${stream} ${tag} ${text}`).sort()).toEqual([
      'stderr F two',
      'stdout F one',
    ]);
    expect(await pods.ask(first, 'hostname')).toBe(pod.config.hostname);
    await pods.stop(first);
    expect(await pods.status(first)).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 137 });
    await pods.removeContainer(first);
    for (const id of [second, third]) expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
    const shim = await shimOf(pod);
    await pods.stopPod(pod);
    expect((await pods.podStatus(pod)).state).toBe('SANDBOX_NOTREADY');
    expect(runs(shim)).toBe(false);
    await pods.removePod(pod);
    const mine = (await shimSockets()).filter((name) => !socketsBefore.includes(name));
    // Other daemons of this machine may have made some.
    if (mine.length > 0) expect((await shims(berthd)).size).toBe(0);
  });

  it('that is stopped with all in it, or only made, leaves nothing', async () => {
    const pod = await newPod();
    await pods.start(pod);
    await pods.create(pod);
    await newPod();
    await pods.removePod(pod);
  });
});

describe('when berthd was killed', () => {
  it('a pod that was being made is taken down, shim and all', async () => {
    // Somewhere between the start of the shim and the end of the call, which may just have been reached.
    for (let i = 0; i < 5; i++) {
      const call = newPod().catch(() => undefined);
      await until('there is a shim', async () => (await shims(berthd)).size > 0);
      await berthd.stop('SIGKILL');
      await call;
      await berthd.start();
      const { items } = await berthd.client.runtime('ListPodSandbox', {});
      const made = items.map(({ id }) => id);
      await until('there are no other shims', async () =>
        [...(await shims(berthd)).keys()].every((id) => made.includes(id)),
      );
      expect(await berthd.removeAllPods()).toEqual([]);
    }
  });
});

describe('when a shim was killed', () => {
  it('its pod and containers are told ended at once, and are removed without a trace', async () => {
    const pod = await newPod();
    const id = await pods.start(pod);
    const other = await newPod();
    const unharmed = await pods.start(other);
    const pid = await pods.pid('container', id);
    process.kill(await shimOf(pod), 'SIGKILL');
    const began = performance.now();
    expect(await pods.ended(id)).toMatchObject({ exit_code: 137 });
    await until('the pod is not ready', async () => (await pods.podStatus(pod)).state === 'SANDBOX_NOTREADY');
    // On an idle machine half a second.
    expect(performance.now() - began).toBeLessThan(15_000);
    await until('its process is gone', () => !runs(pid));
    expect(await pods.ask(unharmed, 'echo still here')).toBe('still here');
    await pods.stopPod(pod);
    await pods.removePod(pod);
    expect([...(await shims(berthd)).keys()]).toEqual([other.id]);
  });

  it('while berthd was away, its successor tells the same', async () => {
    const pod = await newPod();
    const id = await pods.start(pod);
    const shim = await shimOf(pod);
    await berthd.stop('SIGKILL');
    process.kill(shim, 'SIGKILL');
    await until('the shim is gone', () => !runs(shim));
    await berthd.start();
    expect((await pods.ended(id)).exit_code).not.toBe(0);
    await until('the pod is not ready', async () => (await pods.podStatus(pod)).state === 'SANDBOX_NOTREADY');
  });
});

describe('a shim that is stuck', () => {
  it('does not keep its pod from being stopped and removed', async () => {
    const pod = await newPod();
    const id = await pods.start(pod);
    const shim = await shimOf(pod);
    process.kill(shim, 'SIGSTOP');
    // The first call may say that the end is not known yet; the kubelet asks again.
    await until('the pod is stopped', () =>
      pods.stopPod(pod).then(
        () => true,
        () => false,
      ),
    );
    expect((await pods.ended(id)).exit_code).not.toBe(0);
    expect(runs(shim)).toBe(false);
    await pods.removePod(pod);
  });
});
