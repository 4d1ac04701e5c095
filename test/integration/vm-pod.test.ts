import { readdir } from 'node:fs/promises';
import { release } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { type Pod, Pods, sh } from '../support/pods.ts';
import { buildGuest, VM_HANDLER, vmTables } from '../support/vm.ts';

describe('without a guest image', () => {
  let berthd: Berthd;
  let pods: Pods;
  beforeAll(async () => {
    berthd = await Berthd.start({ tables: vmTables('/nonexistent') });
    pods = new Pods(berthd);
  });
  afterAll(async () => {
    expect(await berthd?.close()).toEqual([]);
  });

  it('a pod is refused with what to do about it, and leaves nothing', async () => {
    await expect(pods.run({}, VM_HANDLER)).rejects.toThrow(/berth vm build-guest/);
    expect(await readdir(path.join(berthd.dir, 'state/vm'))).toEqual(['settings.json']);
  });

  it.each([
    ['network', 'NODE'],
    ['pid', 'NODE'],
    ['ipc', 'NODE'],
  ])("the node's %s is refused before anything is made", async (kind, mode) => {
    const linux = { security_context: { namespace_options: { [kind]: mode } } };
    await expect(pods.run({ linux }, VM_HANDLER)).rejects.toThrow(
      new RegExp(`namespace_options.${kind}: the node's is not possible with this runtime handler`),
    );
  });
});

describe('a pod in a virtual machine', () => {
  let berthd: Berthd;
  let pods: Pods;
  let pod: Pod;
  beforeAll(async () => {
    await buildGuest();
    berthd = await Berthd.start({ tables: vmTables() });
    await berthd.importBusybox();
    pods = new Pods(berthd);
    pod = await pods.run({}, VM_HANDLER);
  });
  afterAll(async () => {
    expect(await berthd?.close()).toEqual([]);
  });

  it('has a kernel of its own', async () => {
    const id = await pods.start(pod);
    expect(await pods.ask(id, 'uname -r')).not.toBe(release());
    expect(await pods.ask(id, 'hostname')).toBe(pod.config.hostname);
  });

  it('keeps the logs and codes of its containers', async () => {
    const ended = await pods.runToEnd(pod, sh('echo one; echo two >&2; exit 3'));
    expect(ended.exit_code).toBe(3);
    expect(ended.log.split('\n').sort()).toEqual(['', 'one', 'two']);
  });
});
