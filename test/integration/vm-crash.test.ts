import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { testGuestImage } from '../support/guest.ts';
import { commandLines } from '../support/host.ts';
import { type Pod, Pods, runs, until } from '../support/pods.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';

let berthd: Berthd;
let pods: Pods;
let pod: Pod;
let container: string;
beforeAll(async () => {
  await testGuestImage();
  berthd = await Berthd.start({ tables: vmTables() });
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
beforeEach(async () => {
  pod = await pods.run({}, VM_HANDLER);
  container = await pods.start(pod);
});
afterEach(async () => {
  expect(await berthd.removeAllPods()).toEqual([]);
  expect(await readdir(path.join(berthd.dir, 'state/vm'))).toEqual(['settings.json']);
});
afterAll(async () => {
  expect(await berthd?.close()).toEqual([]);
});

/** The processes of the pod's machine, by their command lines. */
async function machine(): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const [pid, line] of await commandLines()) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (environment.includes(`BERTH_SHIM=${pod.id}\0`)) found.set(line, pid);
  }
  return found;
}

async function pidOf(program: string): Promise<number> {
  for (const [line, pid] of await machine()) if (line.includes(program)) return pid;
  throw new Error(`the machine has no ${program}`);
}

async function toldEnded(): Promise<void> {
  expect(await pods.ended(container)).toMatchObject({ exit_code: 137, reason: 'Error' });
  await until('the pod is not ready', async () => (await pods.podStatus(pod)).state === 'SANDBOX_NOTREADY');
}

describe('a killed part of a virtual machine is told as the end of its pod, and leaves nothing:', () => {
  it.each(['qemu-system', 'virtiofsd', 'vm-shim'])('%s', async (program) => {
    // The shim itself is there until its pod is stopped.
    const others = [...(await machine())].filter(([line]) => !line.includes('vm-shim'));
    process.kill(await pidOf(program), 'SIGKILL');
    await toldEnded();
    await until('all of it is gone', () => others.every(([, pid]) => !runs(pid)));
    await pods.stopPod(pod);
    await pods.removePod(pod);
  });

  it('the shim while berthd was away', async () => {
    await berthd.stop('SIGKILL');
    process.kill(await pidOf('vm-shim'), 'SIGKILL');
    await berthd.start();
    // Nobody saw the end.
    expect((await pods.ended(container)).exit_code).not.toBe(0);
    await until('the pod is not ready', async () => (await pods.podStatus(pod)).state === 'SANDBOX_NOTREADY');
    await until('all of it is gone', async () => (await machine()).size === 0);
  });
});

it('a machine that is stuck does not keep its pod from being stopped and removed', async () => {
  process.kill(await pidOf('qemu-system'), 'SIGSTOP');
  // The first call may say that the end is not known yet; the kubelet asks again.
  await until('the pod is stopped', () =>
    pods.stopPod(pod).then(
      () => true,
      () => false,
    ),
  );
  await pods.removePod(pod);
});
