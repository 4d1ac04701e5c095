import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { Pods } from '../support/pods.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';

describe('without a guest image', () => {
  let berthd: Berthd;
  let pods: Pods;
  beforeAll(async () => {
    berthd = await Berthd.start({ tables: vmTables('guest_dir = "/nonexistent"') });
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
