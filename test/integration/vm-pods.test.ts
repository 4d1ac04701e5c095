import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { describePods } from '../support/pod-contract/describe.ts';
import { VM } from '../support/pod-contract/handler.ts';
import { Pods } from '../support/pods.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';

describePods(VM);

it('without a guest image a pod is refused with what to do about it, and leaves nothing', async () => {
  const berthd = await Berthd.start({ tables: vmTables('/nonexistent') });
  try {
    await expect(new Pods(berthd).run({}, VM_HANDLER)).rejects.toThrow(/berth vm build-guest/);
    expect(await readdir(path.join(berthd.dir, 'state/vm'))).not.toContainEqual(
      expect.stringMatching(/^[0-9a-f]{16}$/),
    );
  } finally {
    expect(await berthd.close()).toEqual([]);
  }
});
