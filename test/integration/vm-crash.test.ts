import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { testGuestImage } from '../support/guest.ts';
import { commandLines } from '../support/host.ts';
import { type Pod, Pods, runs, sh, until } from '../support/pods.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';

let berthd: Berthd;
let pods: Pods;
let dir: string;
beforeAll(async () => {
  await testGuestImage();
  berthd = await Berthd.start({ tables: vmTables() });
  await berthd.importBusybox();
  pods = new Pods(berthd);
  dir = await mkdtemp(path.join(tmpdir(), 'berth-vm-crash-'));
});
afterEach(async () => {
  expect(await berthd.removeAllPods()).toEqual([]);
  expect((await readdir(path.join(berthd.dir, 'state/vm'))).sort()).toEqual([
    'probes.json',
    `settings-${VM_HANDLER}.json`,
  ]);
});
afterAll(async () => {
  expect(await berthd?.close()).toEqual([]);
  await rm(dir, { recursive: true, force: true });
});

/** The processes of a pod's machine, by their command lines. */
async function machine(pod: Pod): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const [pid, line] of await commandLines()) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (environment.includes(`BERTH_SHIM=${pod.id}\0`)) found.set(line, pid);
  }
  return found;
}

async function pidOf(pod: Pod, program: string): Promise<number> {
  for (const [line, pid] of await machine(pod)) if (line.includes(program)) return pid;
  throw new Error(`the machine has no ${program}`);
}

async function newPod(): Promise<{ pod: Pod; container: string }> {
  const pod = await pods.run({}, VM_HANDLER);
  return { pod, container: await pods.start(pod) };
}

function notReady(pod: Pod): Promise<boolean> {
  return until('the pod is not ready', async () => (await pods.podStatus(pod)).state === 'SANDBOX_NOTREADY');
}

/** Enough that a machine is still writing them when berthd is killed. */
const LINES = 100_000;
/** Two buffers of 64 KiB in lines of seven bytes. */
const IN_HAND = 20_000;
const PARTS = ['vm-shim', 'virtiofsd', 'qemu-system'];

describe('a killed part of a virtual machine is told as the end of its pod, and leaves nothing:', () => {
  // What the shim does about its hypervisor's end it does about its file server's.
  it.each(PARTS.slice(0, 2))('%s', async (program) => {
    const { pod, container } = await newPod();
    // The shim itself is there until its pod is stopped.
    const others = [...(await machine(pod))].filter(([line]) => !line.includes('vm-shim'));
    process.kill(await pidOf(pod, program), 'SIGKILL');
    expect(await pods.ended(container)).toMatchObject({ exit_code: 137, reason: 'Error' });
    await notReady(pod);
    await until('all of it is gone', () => others.every(([, pid]) => !runs(pid)));
    await pods.stopPod(pod);
    await pods.removePod(pod);
  });

  it('any of them while berthd was away, as soon as it is back', async () => {
    const killed = await Promise.all(PARTS.map(async (program) => ({ program, ...(await newPod()) })));
    const ofShim = killed[0]?.pod;
    if (ofShim === undefined) throw new Error('no pod');
    // Its end was seen by the shim alone, before that was killed.
    const mounts = [{ host_path: dir, container_path: '/host' }];
    const script = 'until [ -e /host/go ]; do sleep 0.2; done; echo last words; exit 7';
    const earlier = await pods.start(ofShim, sh(script, { mounts }));
    const { bundle } = await pods.info('container', earlier);
    await berthd.stop('SIGKILL');
    await writeFile(path.join(dir, 'go'), '');
    await until('the end is noted', () => existsSync(path.join(String(bundle), 'end.json')));
    for (const { pod, program } of killed) {
      const pid = await pidOf(pod, program);
      process.kill(pid, 'SIGKILL');
      await until(`${program} is gone`, () => !runs(pid));
    }
    await berthd.start();
    const { containers } = await berthd.client.runtime('ListContainers', {});
    expect(containers.map(({ state }) => state)).toEqual(Array(4).fill('CONTAINER_EXITED'));
    for (const { container } of killed) {
      expect(await pods.status(container)).toMatchObject({ exit_code: 137, reason: 'Error' });
    }
    const told = await pods.status(earlier);
    expect(told).toMatchObject({ exit_code: 7, reason: 'Error' });
    expect((await pods.log(told.log_path)).map(({ text }) => text)).toEqual(['last words']);
    for (const { pod } of killed) await notReady(pod);
    await until('what its shim has left is gone', async () => (await machine(ofShim)).size === 0);
    // Three machines at a time, on a node that may do other things.
  }, 180_000);
});

it('a machine that is stuck does not keep its pod from being stopped and removed', async () => {
  const { pod } = await newPod();
  process.kill(await pidOf(pod, 'qemu-system'), 'SIGSTOP');
  // The first call may say that the end is not known yet; the kubelet asks again.
  await until('the pod is stopped', () =>
    pods.stopPod(pod).then(
      () => true,
      () => false,
    ),
  );
  await pods.removePod(pod);
});

it('machines at work outlive berthd, and one in the making is made when it is asked for again', async () => {
  const working = await Promise.all(
    [1, 2].map(async () => {
      const { pod } = await newPod();
      return { pod, busy: await pods.start(pod, sh(`seq 1 ${LINES}; exec sleep 100000`)) };
    }),
  );
  const request = { config: pods.config(), runtime_handler: VM_HANDLER };
  const making = berthd.client.runtime('RunPodSandbox', request).catch(() => undefined);
  await until('a third machine boots', async () => {
    const all = [...(await commandLines()).values()];
    return all.filter((line) => line.includes('qemu-system') && line.includes(`${berthd.dir}/`)).length === 3;
  });
  await berthd.stop('SIGKILL');
  await making;
  await berthd.start();
  for (const { pod } of working) expect((await pods.podStatus(pod)).state).toBe('SANDBOX_READY');
  const again = await berthd.client.runtime('RunPodSandbox', request, { timeoutMs: 240_000 });
  expect((await pods.podStatus(again.pod_sandbox_id)).state).toBe('SANDBOX_READY');
  for (const { busy } of working) {
    expect(await pods.ask(busy, 'echo in it')).toBe('in it');
    const { log_path } = await pods.status(busy);
    const numbers = await until('all is logged', async () => {
      const parts = (await pods.log(log_path)).map(({ text, tag }) => (tag === 'F' ? `${text}\n` : text));
      const all = parts.join('').trimEnd().split('\n').map(Number);
      return all.at(-1) === LINES ? all : undefined;
    });
    // What berthd had in its hands is lost, a line in the middle of it in part; nothing is there twice.
    expect(numbers.length).toBeGreaterThan(LINES - IN_HAND);
    expect(numbers.filter((n, i) => n <= (numbers[i - 1] ?? 0)).length).toBeLessThanOrEqual(1);
  }
  const { items } = await berthd.client.runtime('ListPodSandbox', {});
  expect(items.map(({ state }) => state)).toEqual(Array(3).fill('SANDBOX_READY'));
}, 300_000);
